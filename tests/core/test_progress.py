"""Progress: a bar on a terminal, in a log a line now and then."""

from __future__ import annotations

import sys

import pytest

from caloforge import progress as module
from caloforge.progress import LOG_SECONDS, progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a clock whose first entry is the time."""
    now = [100.0]
    monkeypatch.setattr(module, "_clock", lambda: now[0])
    return now


def test_work_that_lasts_leaves_lines_in_a_log(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress(10_000, "simulating") as advance:
        for _ in range(40):
            clock[0] += 2.5
            advance(250)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "caloforge: simulating: 2,000 of 10,000 (20 %), 100/s, 80 s left",
        "caloforge: simulating: 4,000 of 10,000 (40 %), 100/s, 60 s left",
        "caloforge: simulating: 6,000 of 10,000 (60 %), 100/s, 40 s left",
        "caloforge: simulating: 8,000 of 10,000 (80 %), 100/s, 20 s left",
        "caloforge: simulating: 10,000 of 10,000 in 100 s, 100/s".replace("100 s", "2 min"),
    ]


def test_the_rate_is_that_since_the_last_line(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """What was there before, such as finished chunks, does not count for the time left."""
    with progress(1_000_000, "train") as advance:
        advance(900_000)
        clock[0] += LOG_SECONDS
        advance(20)
        clock[0] += LOG_SECONDS
        advance(2)
    first, second, last = capsys.readouterr().err.splitlines()
    assert "900,020 of 1,000,000 (90 %), 45,001/s" in first
    assert second.endswith("900,022 of 1,000,000 (90 %), 10 s each, 277 h 43 min left")
    assert last.startswith("caloforge: train: 900,022 of 1,000,000 in 40 s")


@pytest.mark.parametrize("enabled", [None, False])
def test_short_work_and_silent_work_leave_nothing(
    enabled: bool | None, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress(10, "short", enabled) as advance:
        for _ in range(10):
            clock[0] += 1.0 if enabled is None else 100.0
            advance(1)
    assert capsys.readouterr().err == ""


def test_a_failure_ends_without_a_summary(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        with progress(10, "work") as advance:
            clock[0] += 2 * LOG_SECONDS
            advance(5)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert capsys.readouterr().err == "caloforge: work: 5 of 10 (50 %), 8.0 s each, 40 s left\n"


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress(3, "drawing") as advance:
        advance(3)
    assert "drawing" in capsys.readouterr().err
