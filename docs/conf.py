"""Settings of the documentation's site: ``make docs`` builds it into ``build/docs``.

The pages are plain Markdown that GitHub shows as well. What only the site needs, the navigation, the pages outside of this folder,
the notebooks, the API reference and the formulas, is added in the build by ``_ext/site_pages.py`` and ``_ext/mathml.py``. Nothing is downloaded.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent / "src")]

from caloforge import __version__  # noqa: E402

project = "caloforge"
author = copyright = "The caloforge developers"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",
    "site_pages",
    "own_references",
]
exclude_patterns = ["results", "_ext", "_static"]
root_doc = "index"

NAVIGATION = {
    "Start": {
        "Start in five minutes": "start",
        "Notebooks": "notebooks/index",
        "Shipped models": "models",
        "Results": "results",
    },
    "Tutorials": {
        "Your own detector": "tutorials/own-detector",
        "Your own data": "tutorials/own-data",
        "A check in automated production": "tutorials/production-check",
        "Amplification for your analysis": "tutorials/amplification",
        "In C++ and in Geant4": "tutorials/deploy",
        "Slurm, HTCondor, Dask": "distributed",
    },
    "How to": {
        "Look at detectors": "detectors",
        "Simulate": "simulate",
        "Train": "train",
        "Train with few showers": "few-showers",
        "Tune": "tune",
        "Use shipped models": "zoo",
        "Generate": "generate",
        "Export": "export",
        "Validate": "validation",
        "Run studies": "studies",
        "Benchmark": "benchmark",
        "Convert": "formats",
        "View": "view",
        "Look into files, split, merge, check the installation": "info",
        "Run the demo": "demo",
        "Use Python": "python",
    },
    "Physics and mathematics": {
        "Models": "physics-models",
        "Metrics": "physics-metrics",
        "Studies": "physics-studies",
        "The flagship": "flagship",
        "The CaloChallenge": "calochallenge",
        "A Geant4 application": "application",
    },
    "Reference": {
        "Files of showers": "file-format",
        "Python API": "api/caloforge",
        "Plan a large production": "production",
        "Other projects": "comparison",
        "Architecture": "architecture",
        "Extend caloforge": "extending",
        "Contributing": "project/contributing",
        "Changelog": "project/changelog",
        "Security": "project/security",
        "Code of conduct": "project/code-of-conduct",
    },
}
"""Captions of the navigation, title to page."""

PROJECT_PAGES = {
    "project/readme": "README.md",
    "project/contributing": "CONTRIBUTING.md",
    "project/changelog": "CHANGELOG.md",
    "project/security": "SECURITY.md",
    "project/code-of-conduct": "CODE_OF_CONDUCT.md",
    "project/data": "data/README.md",
    "project/geant4-application": "examples/geant4_application/README.md",
}
"""Page of the site to the file outside of ``docs`` that it shows."""

site_navigation = NAVIGATION
site_project_pages = PROJECT_PAGES
site_copied = ["results/site", "results/application"]
site_package = "caloforge"
site_without = {"cli"}  # its functions are the commands, which have pages

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
myst_url_schemes = {"http": None, "https": None, "mailto": None, "page": "{{path}}"}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_mock_imports = [
    "geant4_pybind",  # asks for its data sets when it is imported
    *(name for name in ("openvino", "triton") if find_spec(name) is None),
]
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

nitpicky = True
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(?!caloforge\.).*",
    ),  # types of other packages: their inventories would have to be downloaded
    (r"py:.*", r"caloforge\..*\.[A-Z]"),  # type variables in signatures
]
suppress_warnings = ["ref.python"]  # short names such as bytes, which attributes have too

html_theme = "furo"
html_title = f"caloforge {__version__}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
toc_object_entries = False  # thousands of names, which each page of the site would copy
highlight_language = "none"  # blocks without a language are commands and what they print
pygments_style = "friendly"
pygments_dark_style = "monokai"
linkcheck_timeout = 20
