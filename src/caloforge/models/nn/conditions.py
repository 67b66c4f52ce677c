"""Conditions in physical units as inputs of a network.

ln E, and angles and other continuous conditions as they are, each standardised with the training showers' mean and standard
deviation (a constant condition becomes 0); alignments one-hot, with as many values as the detector's beam has. For the impact
point, optionally, sin and cos(2 pi 2^k x / s) of its offset x on top, s the beam's spread.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from caloforge.geometry import Detector

__all__ = ["ConditionEncoder"]


class ConditionEncoder(nn.Module):
    """Encode a condition matrix.

    Arguments:
        detector: The detector, for the numbers of alignments.
        columns: Name of each condition to its columns (``ShowerModel.columns``).
        harmonics: Frequencies of sine and cosine for the impact point.

    Attributes:
        width: Outputs a shower.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, detector: Detector, columns: dict[str, slice], harmonics: int = 0) -> None:
        super().__init__()
        beam = detector.beam
        levels = dict(beam.alignments)
        self.continuous: list[int] = []
        self.logarithmic: list[int] = []
        self.discrete: list[tuple[int, int]] = []
        for name, where in columns.items():
            if name in levels:
                self.discrete.append((where.start, levels[name]))
                continue
            self.continuous.extend(range(where.start, where.stop))
            if name == "incident_energy":
                self.logarithmic.append(where.start)
        self.periodic: list[tuple[int, float]] = []
        if beam.impact in columns and harmonics > 0:
            x = columns[beam.impact].start
            self.periodic = [(x + axis, s) for axis, s in enumerate((beam.spread_x, beam.spread_y)) if s > 0]
        self.harmonics = harmonics
        one_hot = sum(count for _, count in self.discrete)
        self.width = len(self.continuous) + 2 * harmonics * len(self.periodic) + one_hot
        self.register_buffer("mean", torch.zeros(len(self.continuous)))
        self.register_buffer("scale", torch.ones(len(self.continuous)))

    def fit(self, conditions: Tensor) -> None:
        """Set mean and scale from a condition matrix (N, C)."""
        values = self._values(conditions.double())
        self.mean.copy_(values.mean(0))
        spread = values.std(0, unbiased=False)
        self.scale.copy_(torch.where(spread > 1e-6 * values.abs().mean(0).clamp_min(1e-6), spread, 1.0))

    def forward(self, conditions: Tensor) -> Tensor:
        """Return (B, width) for a condition matrix (B, C)."""
        parts = [self.standardised(conditions)]
        for column, spread in self.periodic:
            powers = 2.0 ** torch.arange(self.harmonics, device=conditions.device)
            angle = conditions[:, column : column + 1] * powers * (2.0 * math.pi / spread)
            parts += [torch.sin(angle), torch.cos(angle)]
        for column, count in self.discrete:
            levels = torch.arange(count, device=conditions.device, dtype=conditions.dtype)
            parts.append((conditions[:, column : column + 1] == levels).to(conditions.dtype))
        return torch.cat(parts, dim=1)

    def standardised(self, conditions: Tensor) -> Tensor:
        """Return the continuous conditions alone (B, len(continuous)), in the order of the columns."""
        return (self._values(conditions) - self.mean) / self.scale

    def _values(self, conditions: Tensor) -> Tensor:
        """Return the continuous conditions (B, k), energies as logarithms."""
        columns = [
            torch.log(conditions[:, c]) if c in self.logarithmic else conditions[:, c]
            for c in self.continuous
        ]
        return torch.stack(columns, dim=1) if columns else conditions[:, :0]
