"""caloforge: simulate, learn, generate and validate particle showers in calorimeters.

The names below are the verbs of the command line. They are imported when first used, so that
``import caloforge`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from caloforge._version import __version__

_LAZY = {
    "Showers": "caloforge.showers",
    "get_detector": "caloforge.geometry",
    "load": "caloforge.zoo",
    "open_showers": "caloforge.showers",
    "read_showers": "caloforge.showers",
    "simulate": "caloforge.simulate",
    "train": "caloforge.train",
    "validate": "caloforge.validate",
    "write_showers": "caloforge.showers",
}

__all__ = ["__version__", *_LAZY]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        msg = f"module 'caloforge' has no attribute '{name}'"
        raise AttributeError(msg)
    module = import_module(_LAZY[name])
    return getattr(module, name)
