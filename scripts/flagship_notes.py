"""What the flagship's page says beside the measured numbers: introduction, notes, and what was planned but not made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flagship_numbers import repeats
from flagship_plan import Entry, Group

__all__ = ["introduction", "not_made", "notes", "spread_of_times"]

_INTRODUCTION = Path(__file__).parent / "flagship_intro.md"
_ROUGH = 1.2
"""Times of one network further apart than by this factor are said to be rough."""


def introduction() -> str:
    """Return the hand-written part of the page, Markdown."""
    return _INTRODUCTION.read_text().strip()


def notes(plan: Mapping[str, Entry], entries: Mapping[str, Any]) -> list[str]:
    """Return the plan's notes on entries (of one group) that were measured, a paragraph each."""
    return [
        f'Note on "{plan[name].title}": {plan[name].note}'
        for name in entries
        if name in plan and plan[name].note
    ]


def not_made(plan: Mapping[str, Entry], entries: Mapping[str, Any], group: Group) -> str:
    """Say which trainings of a group are planned, but not among the entries measured; empty when there are none."""
    missing = [entry.title for name, entry in plan.items() if group in entry.figure and name not in entries]
    if not missing:
        return ""
    return (
        f"Planned, but not trained, for want of time on a GPU: {', '.join(missing)}. "
        f"`python scripts/flagship_study.py train --data showers --runs runs --only {group}` trains them."
    )


def spread_of_times(entries: Mapping[str, Any]) -> str:
    """Say how far the times of the baseline's trainings (of the ablations), networks of one form, lie apart; empty when they agree."""
    times = sorted(1000.0 * entry["time"]["ms"] for entry in repeats(entries).values() if "time" in entry)
    if len(times) < 2 or times[-1] < _ROUGH * times[0]:
        return ""
    return (
        f"Times are rough: the baseline's trainings with other seeds, networks of one form and as many steps, took from "
        f"{times[0]:,.0f} to {times[-1]:,.0f} µs."
    )
