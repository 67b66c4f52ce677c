# One command does all of it on a machine that has only Python 3.11 or newer:
#   make demo     environment, installation, and the whole path train -> generate -> validate (into ./demo)
#   make test     environment, installation, lint, types, tests with coverage
#   make docs     environment, installation, the documentation as a site in build/docs, with its links checked
# All reuse the environment the next time, until pyproject.toml or constraints.txt change.

SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
COVERAGE ?= 90
BOOTSTRAP_PYTHON ?= $(shell scripts/find-python)

# Geant4's physics tables, when they lie beside the checkout and nothing else is set.
TABLES := $(wildcard ../shared/geant4-data)
ifneq ($(TABLES),)
export GEANT4_DATA_DIR ?= $(abspath $(TABLES))
endif

DEMO_EXTRAS := eval,report
TEST_EXTRAS := geant4,eval,export,report,formats,track,tune,distributed,docs,test,dev
DOCS_EXTRAS := eval,export,report,formats,track,tune,distributed,docs
RECIPE := pyproject.toml constraints.txt

.PHONY: demo test lint format types docs docs-links bench clean help

help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */  make \1\t/'

demo: $(VENV)/.installed-demo  ## the whole path on the packaged Geant4 showers, into ./demo
	$(BIN)/caloforge demo -o demo --force

test: lint types  ## lint, types, tests with coverage
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal \
	  --cov --cov-report=term:skip-covered --cov-fail-under=$(COVERAGE) $(PYTEST_ARGS)

lint: $(VENV)/.installed-test  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-test  ## ruff: rewrite the files
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-test  ## mypy, strict
	$(BIN)/mypy

docs: $(VENV)/.installed-docs  ## the documentation as a site in build/docs; a warning or a broken link is an error
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -q -W --keep-going -j auto -b html docs build/docs
	$(BIN)/python scripts/check_site.py build/docs

docs-links: $(VENV)/.installed-docs  ## links of the documentation to other sites; needs the internet
	$(BIN)/python -m sphinx -q -b linkcheck docs build/docs-links

bench: $(VENV)/.installed-test  ## every benchmark, one after the other; 2 is the code of one that cannot run here
	@set -e; for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python "$$file" || [ $$? -eq 2 ]; done

clean:  ## remove the environment and what tests, documentation and the demo wrote
	rm -rf $(VENV) demo build docs/api docs/project .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov

$(BIN)/python:
	@test -n "$(BOOTSTRAP_PYTHON)" || { \
	  echo "make: caloforge needs Python 3.11 or newer, and none was found on PATH;" >&2; \
	  echo "make: install it, or name one: make $(MAKECMDGOALS) BOOTSTRAP_PYTHON=/path/to/python3.12" >&2; exit 1; }
	@"$(BOOTSTRAP_PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "make: $(BOOTSTRAP_PYTHON) cannot make an environment (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }

$(VENV)/.installed-demo: $(RECIPE) | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[$(DEMO_EXTRAS)]'
	@touch $@

$(VENV)/.installed-test: $(RECIPE) | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[$(TEST_EXTRAS)]'
	@touch $@ $(VENV)/.installed-demo

$(VENV)/.installed-docs: $(RECIPE) | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[$(DOCS_EXTRAS)]'
	@touch $@
