"""Layer energies as ratios in [0, 1], front to back.

From the fractions f_l = E_l / E of L layers, in the last L columns,

    u_0 = (sum over l of f_l) / s,      u_i = f_(i-1) / (f_(i-1) + f_i + ... + f_(L-1)),   i = 1 ... L - 1,

so that u_0 is the response and u_i the share of what is left that layer i - 1 takes. The scale s keeps u_0 below 1:
it is 1.1 times the largest response of the training showers. Back: f_(i-1) = u_i R_i and
R_(i+1) = R_i (1 - u_i), from R_1 = s u_0; the last layer takes what is left.

References:
    C. Krause, D. Shih, CaloFlow: Fast and Accurate Generation of Calorimeter Showers with Normalizing Flows (2021),
    arXiv:2106.05285. L. Favaro et al., CaloDREAM (2024), arXiv:2405.09629.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from caloforge.errors import ConfigError
from caloforge.geometry import Detector
from caloforge.showers.transforms.base import Transform
from caloforge.showers.transforms.total_normalise import or_one

__all__ = ["LayerRatios"]

_MARGIN = 1.1
"""Scale of the response over the largest one seen."""


class LayerRatios(Transform):
    """Turn layer fractions, the last columns, into ratios; other columns stay as they are.

    The error of a layer's fraction after there and back is a rounding of the shower's total, not of the layer.

    Arguments:
        n_layers: L.
    """

    name: ClassVar[str] = "layer-ratios"
    needs_data: ClassVar[bool] = True
    scale: Tensor

    def __init__(self, n_layers: int, /) -> None:
        super().__init__()
        self.n_layers = n_layers
        self.constant("scale", torch.tensor(torch.nan))
        self._largest = 0.0

    @classmethod
    def layout(cls, detector: Detector, width: int, options: dict[str, Any]) -> tuple[Any, ...]:
        """Return the number of layers."""
        return (detector.n_layers,)

    def forward(self, x: Tensor, energy: Tensor | None = None) -> Tensor:
        """Transform rows (B, n) that end with L fractions."""
        f = x[:, -self.n_layers :]
        left = f.flip(-1).cumsum(-1).flip(-1)
        u = f[:, :-1] / or_one(left[:, :-1])
        return torch.cat([x[:, : -self.n_layers], left[:, :1] / self.scale, u], dim=-1)

    def inverse(self, y: Tensor, energy: Tensor | None = None) -> Tensor:
        """Undo it on rows (B, n) that end with L ratios; ratios outside [0, 1] are brought to its ends."""
        total, u = (
            y[:, -self.n_layers, None] * self.scale,
            y[:, y.shape[1] - self.n_layers + 1 :].clamp(0.0, 1.0),
        )
        left = torch.cat([total, total * torch.cumprod(1 - u, dim=-1)], dim=-1)
        taken = torch.cat([u, torch.ones_like(total)], dim=-1)
        return torch.cat([y[:, : -self.n_layers], left * taken], dim=-1)

    def begin_fit(self) -> None:
        """Forget what was observed."""
        self._largest = 0.0

    def observe(self, x: Tensor, energy: Tensor | None = None) -> None:
        """Look at the responses of rows (B, n)."""
        self._largest = max(self._largest, float(x[:, -self.n_layers :].sum(-1).max()))

    def end_fit(self) -> None:
        """Set the scale."""
        if not self._largest > 0:
            msg = f"transform '{self.name}': no shower with energy to fit to"
            raise ConfigError(msg)
        self.scale.fill_(_MARGIN * self._largest)
