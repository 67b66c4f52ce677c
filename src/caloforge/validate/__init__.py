"""Compare shower samples: observables, metrics, plots and the report.

from caloforge.validate import validate

report = validate("geant4.h5", "vae.h5", "gflash.h5", output="comparison")
report.metrics["samples"]["vae"]["auc_high"]
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import caloforge

if TYPE_CHECKING:
    from caloforge.validate.driver import Report, validate
    from caloforge.validate.metrics.base import Settings
    from caloforge.validate.report.event import view

__all__ = ["Report", "Settings", "validate", "view"]

_LAZY = {
    "Report": "caloforge.validate.driver", "Settings": "caloforge.validate.metrics.base",
    "validate": "caloforge.validate.driver", "view": "caloforge.validate.report.event",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        msg = f"module 'caloforge.validate' has no attribute '{name}'"
        raise AttributeError(msg)
    return getattr(import_module(_LAZY[name]), name)


sys.modules[__name__].__class__ = caloforge.VerbPackage
