"""Which source code computed a number: the commit of a checkout, and a digest of the modules behind a result.

A result kept on disk is used again only while its inputs, its settings and the code that computed it are the same. The version of the
package does not change with every change of the code; the digest does.
"""

from __future__ import annotations

import hashlib
import subprocess
from functools import cache
from pathlib import Path

__all__ = ["source_commit", "source_digest"]

_PACKAGE = Path(__file__).parent
_ROOT = _PACKAGE.parents[1]


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


@cache
def source_digest(*parts: str) -> str:
    """Return a digest of the source code of parts of the package, to key cached results by.

    Arguments:
        parts: Folders or modules below the package, such as ``"validate/metrics"`` or ``"random.py"``.

    Returns:
        16 hexadecimal digits, which change when a line of any of these modules changes.
    """
    digest = hashlib.sha256()
    for part in parts:
        path = _PACKAGE / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(_PACKAGE).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]
