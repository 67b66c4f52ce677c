"""The simulated production behind docs/production.md."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "production.py"


@pytest.fixture(scope="module")
def production() -> ModuleType:
    spec = importlib.util.spec_from_file_location("production", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["production"] = module
    spec.loader.exec_module(module)
    return module


def test_without_faults_the_time_is_the_work(production: ModuleType) -> None:
    site = production.Site(10, spread=0.0, slow=0.0, failures=0.0, start=0.0, ramp=0.0)
    plan = production.Plan(36_000_000, 100.0, 360_000, 2_000)  # 100 jobs of an hour
    found = production.simulate(plan, site, np.random.default_rng(0))
    assert (found.hours, found.used, found.ideal) == pytest.approx((10.0, 100.0, 100.0))
    assert found.retries == 0


def test_failures_cost_what_was_not_stored(production: ModuleType) -> None:
    site = production.Site(10, spread=0.0, slow=0.0, failures=0.5, start=0.0, ramp=0.0)
    rng = [np.random.default_rng(0) for _ in range(2)]
    small, whole = (
        production.simulate(production.Plan(36_000_000, 100.0, 360_000, chunk), site, one)
        for chunk, one in zip((2_000, 360_000), rng, strict=True)
    )
    assert small.retries > 20
    assert small.used < 102.0 < whole.used
    # of a job that ends after an hour, exp(1/2) - 1 over 1/2 hours are used on average where nothing is stored
    assert whole.used == pytest.approx(100 * (np.exp(0.5) - 1) / 0.5, rel=0.15)


def test_copies_of_slow_jobs_end_earlier(production: ModuleType) -> None:
    site = production.Site(20, slow=0.1, factor=10.0)
    plans = [production.Plan(10**8, 100.0, 10**6, 2_000, copies) for copies in (False, True)]
    without, with_copies = (production.mean(plan, site, 3) for plan in plans)
    assert with_copies.hours < 0.8 * without.hours


def test_the_page_has_what_the_script_prints(
    production: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    production.job_sizes(10**9, 1e3 / 4.9, production.Site(1_000), 3)
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    page = (SCRIPT.parents[1] / "docs" / "production.md").read_text().splitlines()
    assert set(printed) <= set(page)
