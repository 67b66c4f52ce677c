"""Cell energies in MeV turned into the values v that a network works on, and back.

With u = energy / unit:

- ``power``: v = sign(u) |u|^p; p = 1 is linear. The published Conv3D GAN takes u in units of 10 MeV (GeV x 100) with
  p = 1, its angle-conditioned form p = 0.85 (arXiv:2109.07388 and its predecessors);
- ``log``: v = sign(u) ln(1 + |u|), linear below the unit and logarithmic above, so that cells of 0.2 and of 400 MeV both
  count.

Both are odd and exactly 0 at 0, so a rectified network makes empty cells, and one without rectifier, as in
the first epochs of the Conv2D GAN, still has finite gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

__all__ = ["CELL_SCALES", "LogScale", "PowerScale", "cell_scale"]

_TINY = 1e-12


class PowerScale(nn.Module):
    """v = sign(u) |u|^p.

    Arguments:
        unit: MeV.
        power: p, in (0, 1].
    """

    def __init__(self, unit: float, power: float = 1.0) -> None:
        super().__init__()
        self.unit, self.power = unit, power

    def forward(self, energies: Tensor) -> Tensor:
        """Return values of energies (MeV), any shape."""
        u = energies / self.unit
        if self.power == 1.0:
            return u
        size = u.abs()
        # the inner clamp keeps the gradient of an empty cell at 0 where that of the power is infinite
        return torch.where(size > _TINY, u.sign() * size.clamp_min(_TINY) ** self.power, torch.zeros_like(u))

    def inverse(self, values: Tensor) -> Tensor:
        """Return energies (MeV) of values, any shape."""
        if self.power == 1.0:
            return values * self.unit
        return values.sign() * values.abs() ** (1.0 / self.power) * self.unit


class LogScale(nn.Module):
    """v = sign(u) ln(1 + |u|).

    Arguments:
        unit: MeV.
        highest: Largest |v| that is turned back, so that an untrained network cannot overflow.
    """

    def __init__(self, unit: float, highest: float = 14.0) -> None:
        super().__init__()
        self.unit, self.highest = unit, highest

    def forward(self, energies: Tensor) -> Tensor:
        """Return values of energies (MeV), any shape."""
        u = energies / self.unit
        return u.sign() * torch.log1p(u.abs())

    def inverse(self, values: Tensor) -> Tensor:
        """Return energies (MeV) of values, any shape."""
        return values.sign() * torch.expm1(values.abs().clamp_max(self.highest)) * self.unit


CELL_SCALES: Mapping[str, Callable[[float, float], PowerScale | LogScale]] = {
    "power": PowerScale,
    "log": lambda unit, _power: LogScale(unit),
}
"""Name of a scale to what makes it from unit (MeV) and power."""


def cell_scale(kind: str, unit: float, power: float) -> PowerScale | LogScale:
    """Return the scale of that name; the settings have checked the name."""
    return CELL_SCALES[kind](unit, power)
