"""Settings of the flows: of their training and of their generation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from caloforge.models.calibration.base import CalibratedSampling
from caloforge.settings import ModelConfig, OptimizerSettings

__all__ = ["ADAMW", "PRESETS", "FlowMatchingConfig", "FlowSampling"]

ADAMW: Mapping[str, Any] = {
    "kind": "adamw",
    "betas": (0.9, 0.99),
    "weight_decay": 0.02,
    "schedule": "cosine",
    "clip": 1.0,
    "ema": 0.999,
}
"""What the optimisers of the flows have in common."""
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "improved": {},
    "large": {
        "width": 384,
        "blocks": 6,
        "repeats": 1,
        "heads": 6,
        "summary_width": 192,
        "summary_blocks": 4,
    },
    "small": {
        "width": 64,
        "local": 0,
        "blocks": 2,
        "repeats": 1,
        "heads": 2,
        "summary_width": 64,
        "summary_blocks": 2,
        "summary_heads": 2,
    },
}
"""Of ``flow-matching``: as trained on a GPU, three times as wide, and for a CPU."""
_Positive = Annotated[int, Field(ge=1)]
_Width = Annotated[int, Field(ge=8)]


class FlowMatchingConfig(ModelConfig):
    """Settings of the flow."""

    search: ClassVar[Mapping[str, str]] = {
        "width": "64,96,128,192",
        "blocks": "1:4",
        "repeats": "1:3",
        "summary_width": "48,80,128",
        "blur": "0.02:0.15:log",
        "batch_size": "128,256,512",
        "summary.lr": "3e-4:3e-3:log",
        "optimizer.lr": "3e-4:3e-3:log",
    }

    cut: Annotated[float, Field(gt=0)] = 1e-4  # energy below which a cell is empty, MeV
    # energy above which a cell counts as a hit of the summary, MeV
    threshold: Annotated[float, Field(gt=0)] = 0.1
    # least fraction of showers in which a cell of the core is filled. Below 1 by more than a little, where energies vary, core cells
    # are too rarely empty at low energies
    core: Annotated[float, Field(gt=0, le=1)] = 0.999
    box: tuple[int, ...] = ()  # sides of a patch; empty: chosen from the detector
    width: _Width = 128  # width of the cells' transformer
    blocks: _Positive = 3  # its blocks with their own weights
    repeats: _Positive = 2  # times that they are applied
    heads: _Positive = 4  # its attention heads
    # channels of the convolutions over neighbouring cells that follow the transformer on a grid; 0: none
    local: Annotated[int, Field(ge=0)] = 16
    summary_width: _Width = 80  # width of the summary's transformer
    summary_blocks: _Positive = 3  # its blocks
    summary_heads: _Positive = 4  # its attention heads
    # impose the layers' centres and widths of the summary, not only its energies and filled cells
    moments: bool = True
    # on a regular mesh, power of the distance from the axis in centres and widths: with 0.5 the squares of the widths hold a layer's mean
    # radius, in which the innermost ring counts more, and not its mean square
    radial: Annotated[float, Field(gt=0)] = 1.0
    # the cells' network sees by how much the layers of noisy showers miss the energies, centres and widths of the summary
    feedback: bool = False
    # the networks see what each layer is to a shower (radiation lengths, sampling fraction and so on), so that one model can
    # serve several detectors of one grid; see :mod:`~caloforge.models.flow.family`
    detector_conditions: bool = False
    symmetries: bool = True  # apply the beam's symmetries to training showers
    # width of the normal noise on the summary in the training of the cells, against small errors of the summary
    blur: Annotated[float, Field(ge=0)] = 0.05
    time_mean: float = 0.0  # mean m of the logit-normal times
    time_spread: Annotated[float, Field(gt=0)] = 1.0  # their width s
    summary_epochs: Annotated[int, Field(ge=0)] = 400  # epochs of the summary
    epochs: _Positive = 400  # epochs of the cells
    summary_batch_size: _Positive = 512  # showers a step of the summary
    batch_size: _Positive = 256  # showers a step of the cells
    calibration: Annotated[int, Field(ge=0)] = 2000  # training showers of the calibration; 0 for none
    # optimiser of the summary's network
    summary: OptimizerSettings = OptimizerSettings(**ADAMW, lr=1e-3, warmup=200)
    # optimiser of the cells' network
    optimizer: OptimizerSettings = OptimizerSettings(**ADAMW, lr=1e-3, warmup=500)


class FlowSampling(CalibratedSampling):
    """What may be chosen at generation."""

    summary_steps: _Positive = 16  # Heun steps of the summary
    steps: _Positive = 8  # steps of the cells, each of two evaluations of the network
    # steps of each cell between two evaluations, with which it follows its own posterior; 0: Heun's method without them
    substeps: Annotated[int, Field(ge=0)] = 4
    # evaluations of the cells' network at each of which every cell is drawn from its posterior; 0: the flow is followed, with steps
    draws: Annotated[int, Field(ge=0)] = 0
    # change the probabilities of filled cells so that each layer has as many as the summary says (with substeps or draws)
    balance: bool = True
    shift: Annotated[float, Field(gt=0)] = 1.0  # where the times lie; below 1 more of them near the noise
