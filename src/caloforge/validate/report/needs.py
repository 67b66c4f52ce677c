"""What a report needs beside the core: asked for before any work, so that nothing is measured in vain."""

from __future__ import annotations

from caloforge.extras import require

__all__ = ["require_report"]

_MODULES = ("matplotlib", "mplhep", "plotly", "jinja2")


def require_report() -> None:
    """Check that figures can be drawn and the page written.

    Raises:
        MissingExtraError: When a module of the ``report`` extra is not installed.
    """
    for module in _MODULES:
        require(module, extra="report")
