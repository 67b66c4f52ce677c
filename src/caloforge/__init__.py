"""caloforge: simulate, learn, generate and validate particle showers in calorimeters.

The names below are the verbs of the command line. They are imported when first used, so that
``import caloforge`` is quick; ``dir(caloforge)`` lists them, and ``__init__.pyi`` describes them for editors and type checkers.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "Showers": "caloforge.showers:Showers",
    "benchmark": "caloforge.benchmark:benchmark",
    "convert": "caloforge.formats:convert",
    "export": "caloforge.generate.export:export",
    "get_detector": "caloforge.geometry:get_detector",
    "info": "caloforge.showers.ranges:info",
    "load": "caloforge.zoo:load",
    "merge": "caloforge.showers.ranges:merge",
    "observe": "caloforge.validate.observables.streaming:observe",
    "open_showers": "caloforge.showers:open_showers",
    "project": "caloforge.showers.views:project_showers",
    "read_showers": "caloforge.showers:read_showers",
    "simulate": "caloforge.simulate:simulate",
    "split": "caloforge.showers.ranges:split",
    "study": "caloforge.studies.run:run_study",
    "train": "caloforge.train:train",
    "tune": "caloforge.tune:tune",
    "validate": "caloforge.validate:validate",
    "view": "caloforge.validate.report.event:view",
    "write_showers": "caloforge.showers:write_showers",
}
"""Name to the module and the attribute that it stands for."""

_ROOMS = ("formats",)
"""Packages that are attributes without an import of their own."""

__all__ = ["__version__", *_LAZY, *_ROOMS]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"caloforge.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module 'caloforge' has no attribute '{name}'")
    module, _, attribute = _LAZY[name].partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)


class VerbPackage(ModuleType):
    """Class of the packages simulate, train, tune, validate and benchmark: a call of the package calls its function of the same name.

    Python makes an imported subpackage an attribute of its parent, so ``caloforge.simulate`` is the function or the package,
    depending on what was imported last; with this class it is both, always.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self._verb(*args, **kwargs)

    @property
    def _verb(self) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])

    @property
    def __signature__(self) -> Any:
        """The signature of the function, for ``inspect`` and tab completion."""
        from inspect import signature

        return signature(self._verb)
