"""Optional dependencies: imported where they are used, named with their install command when missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from caloforge.errors import MissingExtraError

__all__ = ["require"]


def require(module: str, extra: str) -> Any:
    """Import an optional module.

    Arguments:
        module: Name of the module, for example ``"sklearn.metrics"``.
        extra: The extra of caloforge that installs it, for example ``"eval"``.

    Returns:
        The module.

    Raises:
        MissingExtraError: When it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name is not None and error.name.partition(".")[0] != top:
            raise
        raise MissingExtraError(top, extra) from error
