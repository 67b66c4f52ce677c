"""The post-training calibration of a shipped model, fitted again.

Some models end their training with a stage that fits constants to training showers and trains no weight ("calibrate"). When its
method changes, shipped models need that stage alone: the networks stay as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from caloforge.errors import IncompatibleError
from caloforge.files import write_json
from caloforge.models.stage import Stage
from caloforge.provenance import source_commit
from caloforge.random import child_seed
from caloforge.showers.seen import identities
from caloforge.train.data import Files, read_files
from caloforge.train.dataset import CellDataset
from caloforge.zoo.shipping import write_weights
from caloforge.zoo.store import Card, find_card

__all__ = ["STAGE", "recalibrate"]

STAGE = "calibrate"
"""Name of the stage of a training that fits constants alone."""


def recalibrate(card: Card, data: Files, device: str = "cpu", seed: int = 0, n: int | None = None) -> Card:
    """Fit the calibration of a shipped model again, and write its weights and card.

    Arguments:
        card: The model.
        data: Files of showers that the model was trained on.
        device: Where its showers are generated: ``cpu`` or ``cuda``.
        seed: Seed of the choice of showers and of the noise.
        n: Showers to fit to, at most; by default all.

    Returns:
        The card, with ``calibration``: the showers, the seed and the commit, without earlier measurements.

    Raises:
        IncompatibleError: When the model has no such stage, or has not seen some of the showers, which could be meant for judging it.
    """
    files = read_files(data)
    showers = files.showers()
    members = card.models()
    known = np.isin(identities(showers, members[0].detector), card.seen().all)
    if not known.all():
        msg = (
            f"{card.name}: {int((~known).sum())} of {len(known)} showers were not used to train it; expected training "
            "showers alone"
        )
        raise IncompatibleError(msg)
    order = np.random.default_rng(child_seed(seed, "recalibration")).permutation(len(showers))
    chosen = showers[order[:n]]
    where = torch.device(device)
    for number, model in enumerate(members):
        stage = _stage(card, model.stages())
        model.to(where)
        data_set = CellDataset.of(chosen, model, where)
        assert stage.fit is not None
        stage.fit(data_set, torch.Generator(where).manual_seed(child_seed(seed, "recalibration", number)))
        model.cpu()
    facts: dict[str, Any] = {
        "data": files.facts,
        "showers": min(len(chosen), getattr(members[0].config, "calibration", len(chosen))),
        "seed": seed,
        "commit": source_commit(),
    }
    weights = write_weights(members, card.path)
    content = {key: value for key, value in card.content.items() if key not in ("metrics", "speed")}
    write_json(card.path, content | {"weights": weights, "calibration": facts})
    return find_card(card.name, card.path.parents[1])


def _stage(card: Card, stages: tuple[Stage, ...]) -> Stage:
    """Return the stage that calibrates."""
    for stage in stages:
        if stage.name == STAGE and stage.fit is not None:
            return stage
    msg = f"{card.name}: has no stage '{STAGE}'; its stages are {', '.join(stage.name for stage in stages)}"
    raise IncompatibleError(msg)
