"""The version of the source code that does the work, as git names it."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["source_commit"]

_ROOT = Path(__file__).parents[3]


def source_commit(root: Path = _ROOT) -> str | None:
    """Return the commit of the checkout that the package runs from, with ``-dirty`` when tracked files were changed.

    Arguments:
        root: Root of the checkout.

    Returns:
        40 hexadecimal digits, or None where there is no checkout or no git.
    """
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
