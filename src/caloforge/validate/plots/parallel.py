"""Drawing in two processes: figures for paper take half a second each, and matplotlib uses one core.

The second process is this module run as a program, which reads its figures from standard input; so a script that
calls ``validate`` needs no ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

from caloforge.validate.plots.draw import draw_figures
from caloforge.validate.plots.panel import Heat, Panel

__all__ = ["draw_all"]

_FEW = 12  # figures that one process draws as quickly, since the other one starts first


def draw_all(figures: list[Panel | Heat], folder: Path, advance: Any = None) -> list[Path]:
    """Write every figure as PNG and PDF; as :func:`~caloforge.validate.plots.draw.draw_figures`, on two cores."""
    if len(figures) < _FEW or (os.cpu_count() or 1) < 2:
        return draw_figures(figures, folder, advance)
    near, far = figures[::2], figures[1::2]
    command = [sys.executable, "-m", "caloforge.validate.plots.parallel", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as other:
        try:
            paths = _send(other, far)
            paths += draw_figures(near, folder, advance)
        except BaseException:
            other.kill()
            raise
    if other.returncode != 0:  # for example killed for its memory: this process does its part again
        return paths[len(far) * 2 :] + draw_figures(far, folder, advance)
    if advance is not None:
        advance(len(far))
    return paths


def _send(other: subprocess.Popen[bytes], figures: list[Panel | Heat]) -> list[Path]:
    """Hand figures to the other process; return the paths that it will write."""
    folder = Path(str(other.args[-1]))  # type: ignore[index]
    if other.stdin is not None:
        try:
            other.stdin.write(pickle.dumps(figures))
            other.stdin.close()
        except BrokenPipeError:
            pass
    return [folder / f"{figure.name}.{ending}" for figure in figures for ending in ("png", "pdf")]


if __name__ == "__main__":
    draw_figures(
        pickle.load(sys.stdin.buffer), Path(sys.argv[1])
    )  # written by the process that started this one
