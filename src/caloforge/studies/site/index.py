"""The entrance of the site: a table of its pages, the numbers beside the papers', what was left out and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from caloforge import __version__
from caloforge.studies import STUDIES
from caloforge.studies.page import number_text
from caloforge.studies.site.plan import Plan
from caloforge.validate.report.page import Block, Cell, Code, Page, Section, Table, Text

__all__ = ["Done", "write_index"]


@dataclass(frozen=True)
class Done:
    """A study of the site.

    Attributes:
        study: Its name.
        detector: The reference's detector.
        models: Labels of what was judged.
        folder: Its folder in the site.
        content: The content of its ``study.json``; empty when it failed.
        error: Why it failed; empty when it did not.
    """

    study: str
    detector: str
    models: tuple[str, ...]
    folder: str
    content: Mapping[str, Any]
    error: str = ""

    @property
    def published(self) -> list[Mapping[str, Any]]:
        """Its rows beside which a paper has a number."""
        return [row for row in self.content.get("rows", ()) if row["paper"] is not None]


def write_index(
    folder: Path, done: Sequence[Done], plan: Plan, models: Sequence[str], command: str, asked: str = ""
) -> Path:
    """Write ``index.html`` and return its path.

    Arguments:
        folder: Folder of the site.
        done: The studies so far.
        plan: What is to be done, and what not.
        models: Labels of all models.
        command: The command that makes the site.
        asked: The file of groups that it names; empty for none.
    """
    finished = [one for one in done if not one.error]
    sections = [
        Section("Pages", [_pages(done)], "Each study has a page of its own, with its figures and tables.")
    ]
    numbers = [row for one in finished for row in one.published]
    if numbers:
        sections.append(Section("Ours and the papers'", [_numbers(finished)]))
    if plan.left_out:
        table = Table(
            ("study", "reference", "model", "why not"),
            [[Cell(text) for text in line] for line in plan.left_out],
            texts=(0, 1, 2, 3),
        )
        sections.append(Section("Left out", [table], "Studies that do not fit a model.", folded=True))
    blocks: list[Block] = [Code(command)]
    if len(done) < len(plan.jobs):
        blocks.append(
            Text(f"{len(plan.jobs) - len(done)} studies are still to be done; the same command goes on.")
        )
    if asked:
        blocks += [Text("The file of pages that the command names:"), Code(asked.strip())]
    sections.append(Section("How this was made", blocks))
    facts = {
        "studies": str(len(finished)),
        "models": str(len(models)),
        "date": datetime.now(UTC).date().isoformat(),
        "caloforge": __version__,
    }
    page = Page("Results", sections, "The published studies, repeated on every model that they fit", facts)
    return page.write(folder / "index.html", force=True)


def _pages(done: Sequence[Done]) -> Table:
    rows: list[list[Cell | str | float]] = []
    for one in done:
        title = STUDIES[one.study].title
        if one.error:
            rows.append(
                [Cell(title, small=one.error, flag="bad"), one.detector, ", ".join(one.models), "", "", ""]
            )
            continue
        rows.append(
            [
                Cell(title, href=f"{one.folder}/report.html"),
                one.detector,
                ", ".join(one.models),
                _used(one.content["showers"]),
                one.content["paper"]["reference"],
                one.content["date"],
            ]
        )
    return Table(
        ("study", "detector", "models", "showers used", "paper", "date"), rows, texts=(0, 1, 2, 3, 4, 5)
    )


def _used(showers: Mapping[str, int]) -> str:
    """Return how many showers of each sample a study used, those of one number together."""
    names: dict[int, list[str]] = {}
    for label, number in showers.items():
        names.setdefault(number, []).append(label.rpartition("/")[2])
    return "; ".join(f"{', '.join(labels)} {number:,}" for number, labels in names.items())


def _numbers(done: Sequence[Done]) -> Table:
    rows = []
    for one in done:
        for row in one.published:
            value = row["ours"]
            text = number_text(value, row["uncertainty"], row["unit"])
            rows.append(
                [
                    Cell(one.study, href=f"{one.folder}/report.html"),
                    Cell(row["sample"]),
                    Cell(row["quantity"]),
                    Cell(text, sort=value, small="" if value is not None else row["note"], title=row["note"]),
                    Cell(_published(row["paper"])),
                    Cell(row["paper"]["source"], small=row["paper"]["note"]),
                ]
            )
    return Table(
        ("study", "sample", "quantity", "ours", "paper", "source"), rows, key="numbers", texts=(0, 1, 2, 4, 5)
    )


def _published(entry: Mapping[str, Any]) -> str:
    from caloforge.studies.papers import paper

    return paper(str(entry["key"])).text
