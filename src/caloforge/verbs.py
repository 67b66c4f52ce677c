"""Packages that are verbs: ``caloforge.simulate(...)`` calls, ``caloforge.simulate.ENGINES`` looks inside.

A package and a function of the same name would otherwise hide each other, whichever was imported last.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

__all__ = ["make_callable"]


class _Verb(ModuleType):
    """A package whose call is the function that bears its name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **kwargs)


def make_callable(package: str) -> None:
    """Let a package be called as its function of the same name.

    Arguments:
        package: Its full name, ``__name__`` in its ``__init__``.
    """
    sys.modules[package].__class__ = _Verb
