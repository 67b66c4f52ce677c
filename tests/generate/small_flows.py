"""Small flows, untrained, whose constants are those of packaged showers."""

from __future__ import annotations

import torch

from caloforge.data import sample_path
from caloforge.models.flow.model import FlowMatching
from caloforge.showers import read_showers


def small_flow(kind: type[FlowMatching], preset: str = "small") -> FlowMatching:
    """Return a flow with random weights, those of its last layers too, which training would begin at 0."""
    showers = read_showers(sample_path())[:64]
    torch.manual_seed(0)
    made = kind(showers.detector, kind.resolve({"preset": preset}))
    made.fit_transforms(showers)
    for stage in made.stages():
        if stage.name == "copy" and stage.fit is not None:
            stage.fit(None, torch.Generator())  # type: ignore[arg-type]
    for weights in made.parameters():
        if not weights.any():
            torch.nn.init.normal_(weights, std=0.02)
    return made.eval()
