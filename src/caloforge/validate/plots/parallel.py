"""Figures for paper are drawn by other processes while this one measures: each takes a third of a second of one core.

The other processes are this module run as a program, which reads its figures from standard input; so a script that
calls ``validate`` needs no ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from caloforge.validate.plots.draw import Figure, draw_figures

__all__ = ["Drawing"]

_FEW = 8  # figures for which no further process is started
_MOST_PROCESSES = 4
_POLL = 0.2  # s


class Drawing:
    """Figures that are being written as PNG and PDF; a context that ends the processes when it is left.

    Arguments:
        figures: What to draw.
        folder: Where to.
        processes: How many processes draw; by default half of the cores, and at least one where there are two.
    """

    def __init__(self, figures: Sequence[Figure], folder: Path, processes: int | None = None) -> None:
        self.figures, self.folder = list(figures), folder
        asked = _processes() if processes is None else processes
        number = min(asked, -(-len(self.figures) // _FEW))
        self._shares = [self.figures[start::number] for start in range(number)]
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Drawing:
        """Start the processes."""
        command = [sys.executable, "-m", "caloforge.validate.plots.parallel", str(self.folder)]
        quiet = os.environ | {"OMP_NUM_THREADS": "1"}
        for share in self._shares:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=quiet,
            )
            self._running.append(process)
            _send(process, share)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what still runs."""
        for process in self._running:
            if process.poll() is None:
                process.kill()
            process.wait()

    @property
    def paths(self) -> list[Path]:
        """The files that are written."""
        return [
            self.folder / f"{figure.name}.{ending}" for figure in self.figures for ending in ("png", "pdf")
        ]

    def finish(self, advance: Callable[[int], object] | None = None) -> list[Path]:
        """Wait until all are drawn and return the files.

        What a process did not draw (killed for its memory, say), or all where there is one core, is drawn here.

        Arguments:
            advance: Told how many more are there.
        """
        told = 0
        while any(process.poll() is None for process in self._running):
            time.sleep(_POLL)
            if advance is not None:
                there = sum((self.folder / f"{figure.name}.pdf").exists() for figure in self.figures)
                advance(max(0, there - told))
                told = max(there, told)
        for process, share in zip(self._running, self._shares, strict=False):
            if process.returncode != 0:
                draw_figures(share, self.folder)
        if not self._running:
            draw_figures(self.figures, self.folder, advance)
        elif advance is not None:
            advance(len(self.figures) - told)
        return self.paths


def _processes() -> int:
    """Return how many processes draw beside this one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST_PROCESSES, cores // 2)


def _send(process: subprocess.Popen[bytes], figures: Sequence[Figure]) -> None:
    """Hand figures to a process."""
    if process.stdin is not None:
        try:
            process.stdin.write(pickle.dumps(figures))
            process.stdin.close()
        except BrokenPipeError:  # its end says why
            pass


if __name__ == "__main__":  # what it reads was written by the process that started it
    draw_figures(pickle.load(sys.stdin.buffer), Path(sys.argv[1]))
