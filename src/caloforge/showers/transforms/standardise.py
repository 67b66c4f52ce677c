"""Standardisation: y = (x - mu) / sigma, with mean and standard deviation of the training showers.

They are gathered batch by batch in double precision with the update of Chan et al.: for two sets of n_a and n_b
values whose means differ by d,

    mu = mu_a + d n_b / n,    M = M_a + M_b + d^2 n_a n_b / n,    sigma^2 = M / n.

References:
    T. F. Chan, G. H. Golub, R. J. LeVeque, Updating formulae and a pairwise algorithm for computing sample
    variances (1982), doi:10.1007/978-3-642-51461-6_3.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from caloforge.errors import ConfigError
from caloforge.geometry import Detector
from caloforge.showers.transforms.base import Transform

__all__ = ["Standardise"]


class Standardise(Transform):
    """Zero mean and unit standard deviation.

    Arguments:
        width: Number of columns.
        per_column: One mean and deviation for each column; otherwise one for all. Columns that do not vary are
            only shifted.
    """

    name: ClassVar[str] = "standardise"
    needs_data: ClassVar[bool] = True
    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int, /, *, per_column: bool = True) -> None:
        super().__init__(per_column=per_column)
        self.columns = width if per_column else 1
        self.constant("mean", torch.full((self.columns,), torch.nan))
        self.constant("deviation", torch.full((self.columns,), torch.nan))
        self.begin_fit()

    @classmethod
    def layout(cls, detector: Detector, width: int, options: dict[str, Any]) -> tuple[Any, ...]:
        """Return the number of columns."""
        return (width,)

    def forward(self, x: Tensor, energy: Tensor | None = None) -> Tensor:
        """Standardise rows (B, n)."""
        return (x - self.mean) / self.deviation

    def inverse(self, y: Tensor, energy: Tensor | None = None) -> Tensor:
        """Undo it on rows (B, n)."""
        return y * self.deviation + self.mean

    def begin_fit(self) -> None:
        """Forget what was observed."""
        self._n = 0
        self._mu = torch.zeros(self.columns, dtype=torch.float64)
        self._m = torch.zeros(self.columns, dtype=torch.float64)

    def observe(self, x: Tensor, energy: Tensor | None = None) -> None:
        """Add rows (B, n) to mean and variance."""
        values = (x.reshape(-1, 1) if self.columns == 1 else x).to("cpu", torch.float64)
        n = len(values)
        mu = values.mean(0)
        d = mu - self._mu
        total = self._n + n
        self._m += (values - mu).square_().sum(0) + d**2 * (self._n * n / total)
        self._mu += d * (n / total)
        self._n = total

    def end_fit(self) -> None:
        """Set mean and deviation."""
        if not self._n:
            msg = f"transform '{self.name}': no showers to fit to"
            raise ConfigError(msg)
        deviation = (self._m / self._n).sqrt()
        deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
        self.mean.copy_(self._mu)
        self.deviation.copy_(deviation)
