"""The measurement that ends a training: the trained model against the showers that it held out.

The held-out showers chose the epoch of each stage, by the loss of its network and by nothing else; no weight and no calibration was fitted
to them. Those whose conditions lie beyond all training showers are left out. As many showers are generated under their conditions, and both go through the standard comparison
(:mod:`caloforge.validate.driver`) into ``RUN/report``, which says that they selected the model. A number for a publication needs showers
that the training has not seen at all: ``caloforge validate``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caloforge.errors import MissingExtraError, TooFewShowersError
from caloforge.files import write_json
from caloforge.generate import condition_range
from caloforge.showers import Showers
from caloforge.train import RunFolder, held_out_showers
from caloforge.train.files import Files
from caloforge.train.plan import REPORT_SECONDS
from caloforge.validate.driver import Report, validate
from caloforge.validate.report.build import require_report
from caloforge.validate.report.summary import judge
from caloforge.zoo.store import load

__all__ = ["ROWS", "Closing", "close_training", "needs_quick"]

ROWS = ("response", "resolution", "hits", "auc_observables", "auc_cells", "auc_spectrum", "detectability")
"""Statements of the short table."""
_FEWEST, _MOST = 20, 5_000
_LABEL = "held-out showers"


@dataclass(frozen=True)
class Closing:
    """What was measured, or why nothing was."""

    report: Report | None
    showers: int = 0  # compared on each side
    shower_seconds: float = 0.0  # of a generated shower, all of them at once
    device: str = ""
    missing: str = ""  # why there is no report

    def rows(self) -> list[tuple[str, str, str]]:
        """Return name, value and remark of the short table."""
        if self.report is None:
            return []
        sample = next(iter(self.report.metrics["samples"].values()))
        found = judge(sample)
        rows = [(found[key].label, found[key].text, found[key].small) for key in ROWS if key in found]
        return [
            *rows,
            (
                "Time of a shower",
                f"{1e3 * self.shower_seconds:.3g} ms",
                f"{self.showers:,} at once on {self.device}",
            ),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for ``run.json``."""
        if self.report is None:
            return {"missing": self.missing}
        return {
            "showers": self.showers, "shower_seconds": self.shower_seconds, "device": self.device,
            "statements": {name: value for name, value, _ in self.rows()},
        }  # fmt: skip


def needs_quick(info: Mapping[str, Any]) -> bool:
    """Return whether the time of a planned run, of that ``run.json``, is left for a quick comparison alone."""
    facts, used = info["plan"], float(info["wall_seconds"])
    slow = max(1.0, used / max(1e-3, float(info["cpu_seconds"]))) if info["device"] == "cpu" else 1.0
    left = float(facts["seconds"]) - used - float(facts["predicted_seconds"].get("before it", 0.0))
    return bool(facts["quick_report"]) or left < slow * REPORT_SECONDS


def close_training(
    run: str | Path,
    data: Files,
    device: str = "auto",
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Closing:
    """Measure a finished run against its held-out showers, write ``RUN/report``, and note the result in ``run.json``.

    Arguments:
        data: Files of showers that the run was trained with.
        settings: Of the metrics, such as ``{"quick": True}``.
        seed: Of the generated showers and of the metrics.

    Returns:
        The report; without one where nothing, or too little, was held out, or an extra is missing: ``missing`` says so.
    """
    folder = RunFolder(Path(run))
    try:
        require_report()
        showers = held_out_showers(run, data)
        closing = _compare(folder, showers, device, {"seed": seed, "device": device, **(settings or {})})
    except (MissingExtraError, TooFewShowersError) as error:
        closing = Closing(None, missing=str(error))
    write_json(folder.info, folder.read() | {"closing": closing.as_dict()})
    return closing


def _compare(folder: RunFolder, showers: Showers, device: str, settings: Mapping[str, Any]) -> Closing:
    if len(showers) < _FEWEST:
        msg = f"{len(showers)} showers were held out; expected at least {_FEWEST}"
        raise TooFewShowersError(msg)
    source = load(folder.path, device)
    low, high = (bound.cpu() for bound in condition_range(source.model))
    conditions = source.model.condition_matrix(showers)
    inside = ((conditions >= low) & (conditions <= high)).all(1).numpy()  # of the training showers' range
    chosen = showers[np.flatnonzero(inside)[:_MOST]]
    began = time.monotonic()
    made = source.generate(like=chosen, seed=int(settings["seed"]))
    seconds = (time.monotonic() - began) / len(chosen)
    report = validate(
        chosen, made, output=folder.report, settings=settings, labels=[_LABEL, source.name], allow_seen=True, force=True,
        command=f"caloforge train (the measurement that ends it; the {_LABEL} chose the epochs of {source.name})",
    )  # fmt: skip
    return Closing(report, len(chosen), seconds, str(source.device))
