"""One way to show progress on standard error: a bar on a terminal, in a log a line now and then of work that lasts."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["LOG_SECONDS", "progress"]

LOG_SECONDS = 20.0
"""Seconds between two lines in a log, and before the first one."""
_clock = time.monotonic


@contextmanager
def progress(total: int, label: str, enabled: bool | None = None) -> Iterator[Callable[[int], None]]:
    """Yield a function that says that some more steps are done.

    Arguments:
        total: Steps in all.
        label: What is done.
        enabled: True: a bar; False: nothing; None: a bar where standard error is a terminal, else a line every :data:`LOG_SECONDS` with the
            number of steps, their rate and the time left. Work that is shorter leaves no line.
    """
    if enabled is False:
        yield lambda _steps: None
    elif enabled or sys.stderr.isatty():
        with _bar(total, label) as advance:
            yield advance
    else:
        log = _Log(total, label)
        yield log.advance
        log.end()


class _Log:
    """Lines in a log."""

    def __init__(self, total: int, label: str) -> None:
        self.total, self.label, self.done, self.lines = total, label, 0, 0
        self.began = self.last = _clock()
        self.before = 0  # steps at the last line

    def advance(self, steps: int) -> None:
        """Count steps; write a line when it is time."""
        self.done += steps
        now = _clock()
        if now - self.last < LOG_SECONDS or self.done >= self.total:
            return
        rate = (self.done - self.before) / (now - self.last)
        left = f", {_time((self.total - self.done) / rate)} left" if rate else ""
        part = f"{self.done:,} of {self.total:,} ({100 * self.done / self.total:.0f} %)"
        self._write(f"{part}{_rate(rate)}{left}")
        self.last, self.before = now, self.done

    def end(self) -> None:
        """Say how long the work took, when there were lines of it."""
        if self.lines:
            seconds = _clock() - self.began
            self._write(f"{self.done:,} of {self.total:,} in {_time(seconds)}{_rate(self.done / seconds)}")

    def _write(self, text: str) -> None:
        print(f"caloforge: {self.label}: {text}", file=sys.stderr, flush=True)
        self.lines += 1


def _rate(rate: float) -> str:
    """Return a speed as people read it: steps a second, or the time of one."""
    if not rate:
        return ""
    return (
        f", {rate:,.3g}/s"
        if rate < 1000 and rate >= 1
        else f", {rate:,.0f}/s"
        if rate >= 1
        else f", {_time(1 / rate)} each"
    )


def _time(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


@contextmanager
def _bar(total: int, label: str) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Steps a second."""

        def render(self, task: Any) -> Text:
            return Text(_rate(task.speed or 0.0).removeprefix(", "))

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda steps: bar.advance(task, steps)
