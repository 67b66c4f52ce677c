"""caloforge: simulate, learn, generate and validate particle showers in calorimeters.

The names below are the verbs of the command line. They are imported when first used, so that
``import caloforge`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "Showers": "caloforge.showers",
    "benchmark": "caloforge.benchmark",
    "convert": "caloforge.formats",
    "export": "caloforge.generate.export",
    "get_detector": "caloforge.geometry",
    "load": "caloforge.zoo",
    "merge": "caloforge.showers.ranges",
    "open_showers": "caloforge.showers",
    "read_showers": "caloforge.showers",
    "simulate": "caloforge.simulate",
    "train": "caloforge.train",
    "tune": "caloforge.tune",
    "validate": "caloforge.validate",
    "write_showers": "caloforge.showers",
}

_ROOMS = ("formats",)
"""Packages that are attributes without an import of their own."""

__all__ = ["__version__", *_LAZY, *_ROOMS]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"caloforge.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module 'caloforge' has no attribute '{name}'")
    return getattr(import_module(_LAZY[name]), name)


class VerbPackage(ModuleType):
    """Class of the packages simulate, train, tune, validate and benchmark: a call of the package calls its function of the same name.

    Python makes an imported subpackage an attribute of its parent, so ``caloforge.simulate`` is the function or the package,
    depending on what was imported last; with this class it is both, always.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **kwargs)
