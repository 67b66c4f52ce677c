r"""Networks of the improved BIB-AE: a decoder along the shower axis and a sampler of cells.

The axis starts at the beam's entry point and points along theta, so it passes layer l at :math:`y_l = y_0 + z_l / \tan \theta`. With
the distances of a cell to it, (dx, dy sin theta) and r, and the pitch p, a small network maps

.. math:: \ln(1 + r^2 / r_0^2) \; (r_0 = 2, 10, 40 \text{ mm}), \quad dx / r, \; dy / r, \quad
          \tanh(dx / p), \; \tanh(dy / p), \quad \tanh(dy / 4p), \; \text{depth}

to features. The latents scale and shift the features of each layer, and make a small grid that transposed convolutions enlarge and
add, as in the published decoder. Convolutions 3^3 at full size follow, and a softmax over all cells:

.. math:: m_i = V \frac{\exp(a_i)}{\sum_j \exp(a_j)} .

m is the mean energy of a cell for these latents: trained with the cross entropy :math:`-\sum_i x_i \ln(m_i / V)`,
the deviance of Poisson numbers of a fixed total, its layer energies and profiles have no bias. Beside m the decoder makes
further feature maps for the sampler.

The sampler draws each cell with a normal number n from a distribution that depends on m. Like the published post-processor it is a
stack of six 1 x 1 x 1 convolutions. From ln m, the feature maps and the conditions, three convolutions predict the probability p that
the cell is hit. With :math:`\tau = \Phi(n)` it is where :math:`\tau > 1 - p`, and then

.. math:: \tau' = \frac{\tau - (1 - p)}{p}, \qquad \ln e = q(\tau')

with q from three more convolutions. p is trained by the cross entropy and q, the quantile function of the energy, by the
pinball loss :math:`\langle (v - q) (\tau' - [v < q]) \rangle` at random :math:`\tau'`, both from pairs of true cells and decoded
means. So the spectrum of the cells, the MIP peak and the number of hits follow from likelihoods. Gradients pass the step at
:math:`\tau = 1 - p` through a sigmoid of temperature 0.3.

The axis of a generated shower is moved at random (:class:`AxisSpread`). Latents and sampled cells leave the centres of gravity of a
shower narrower than they are, since the fluctuations of neighbouring cells belong together in a shower and are independent in the sampler. A line is fitted to
the centres of the layers, at depth z_0 and with slope b, transverse to the axis. The covariance of a and b falls like 1/E; what is missing of that of the training showers is
that of the displacement

.. math:: \delta(z) = \sqrt{E_0 / E} \; (a + b (z - z_0)),

with two normal numbers each in x and y.

References:
    R. Liu et al., An intriguing failing of convolutional neural networks and the CoordConv solution, arXiv:1807.03247.
    W. Dabney et al., Implicit quantile networks for distributional reinforcement learning, arXiv:1806.06923.
    C. Maddison et al., The concrete distribution, arXiv:1611.00712.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from caloforge.geometry import Detector, ReadoutLayer
from caloforge.models.bib_ae.networks import Pointwise
from caloforge.models.calibration.regression import least_squares
from caloforge.models.nn.cell_networks import mlp

__all__ = [
    "LOWEST", "RADII", "TINY", "UNIT", "AxisDecoder", "AxisMaps", "AxisSpread", "CellSampler", "uniform",
]  # fmt: skip

RADII = (2.0, 10.0, 40.0)
"""r_0, mm."""
TINY = 1e-3
"""Added to the square of r in dx / r and dy / r, mm^2."""
_SEED_CHANNELS = 16
UNIT = 0.2
"""Unit of the energies of cells, MeV; about the energy of a MIP in half a millimetre of silicon."""
LOWEST = 1e-6
"""Least mean energy of a cell, MeV."""
_TEMPERATURE = 0.3
_EDGE = 1e-6
_MARGIN = 3.0  # of the logit of p, beyond which a cell of small mean cannot be a hit
_REACH = 10.0  # largest |ln(e / 0.2 MeV)| of a cell


class AxisMaps(nn.Module):
    """The ``size`` maps of the position of each cell of a grid relative to the axis of the shower."""

    x: Tensor
    y: Tensor
    z: Tensor
    depth: Tensor
    size = len(RADII) + 6

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        layers = [layer for layer in detector.layers if isinstance(layer, ReadoutLayer)]
        first, beam = layers[0], detector.beam
        self.pitch = first.pitch_x
        for name, values in (
            ("x", (first.x - beam.x)[:, None, None]),
            ("y", (first.y - beam.y)[:, None]),
            ("z", [layer.z for layer in layers]),
            ("depth", detector.relative_depth),
        ):
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32), persistent=False)

    def distances(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distances dx and dy sin theta of the cells to the axis, mm, that broadcast to (B, X, Y, L), for angles (B,), degrees."""
        angle = torch.deg2rad(theta.clamp(5.0, 175.0))[:, None, None, None]
        return self.x, (self.y - self.z * torch.cos(angle) / torch.sin(angle)) * torch.sin(angle)

    def from_axis(self, theta: Tensor, moved: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the distances, mm, dx (B, X, 1, L or 1) and dy (B, 1, Y, L) to an axis with displacements (2, B, L), mm."""
        dx, dy = self.distances(theta)
        if moved is None:
            return dx.expand(theta.shape[0], -1, -1, -1), dy
        return dx - moved[0][:, None, None], dy - moved[1][:, None, None]

    def forward(self, theta: Tensor, moved: Tensor | None = None) -> Tensor:
        """Return the maps (B, 9, X, Y, L) for angles (B,), degrees, and displacements (2, B, L) of the axis, mm."""
        shape = (theta.shape[0], self.x.shape[0], self.y.shape[0], len(self.z))
        dx, dy = (distance.expand(shape) for distance in self.from_axis(theta, moved))
        square = dx.square() + dy.square()
        r = torch.sqrt(square + TINY)
        maps = [torch.log1p(square / radius**2) / 4.0 for radius in RADII]
        maps += [dx / r, dy / r, torch.tanh(dx / self.pitch), torch.tanh(dy / self.pitch)]
        maps += [torch.tanh(dy / (4.0 * self.pitch)), self.depth.expand(shape)]
        return torch.stack(maps, 1)


_SCALE = 50_000.0  # E_0, MeV
_FARTHEST = 5.0  # largest residual of a line, in standard deviations of a normal distribution
_NORMAL = 1.4826  # standard deviation over the median of the absolute value
_MOST_CHANGE = 2.0  # largest factor of a correction of the displacement


class AxisSpread(nn.Module):
    """Random displacements of the axis; none before the fit."""

    size = 4  # normal numbers of a shower
    root: Tensor  # (2, 2, 2) a and b from two normal numbers, in x and y: mm, and mm a mm
    depth: Tensor  # (1,) z_0, mm

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("root", torch.zeros(2, 2, 2))
        self.register_buffer("depth", torch.zeros(1))

    def forward(self, normal: Tensor, energy: Tensor, z: Tensor) -> Tensor:
        """Return displacements (2, B, L), mm, of normal numbers (B, 4), energies (B,), MeV, and depths of the layers (L,), mm."""
        scale = torch.sqrt(_SCALE / energy)[None, :, None]
        line = torch.einsum("kij,bkj->kbi", self.root, normal.view(-1, 2, 2)) * scale
        moved: Tensor = line[..., :1] + line[..., 1:] * (z - self.depth)
        return moved

    @staticmethod
    def lines(cells: Tensor, distances: tuple[Tensor, Tensor], z: Tensor) -> Tensor:
        """Return a and b in x and y (B, 4) of the lines through the centres of the layers of cells (B, X, Y, L), weighted with their energies.

        a is the centre of the whole shower, mm; ``distances`` are those of the cells to the axis, mm; depths are (L,), mm.
        """
        layers = cells.sum((1, 2))
        whole = layers.sum(1).clamp_min(LOWEST)
        away = z - ((layers * z).sum(1) / whole)[:, None]
        lever = (layers * away.square()).sum(1).clamp_min(LOWEST)
        found = []
        for distance in distances:
            moments = (cells * distance).sum((1, 2))
            middle = moments.sum(1) / whole
            slope = ((moments - layers * middle[:, None]) * away).sum(1) / lever
            found += [middle, slope]
        return torch.stack(found, 1)

    @staticmethod
    def covariance(lines: Tensor, energy: Tensor, angle: Tensor) -> Tensor:
        """Return the covariances (2, 2, 2) of lines (N, 4), times E / E_0, about their mean trend with energies (N,), MeV, and angles (N,), degrees."""
        scale = torch.sqrt(energy / _SCALE)[:, None].double()
        x, t = torch.log(energy.double() / _SCALE), angle.double() / 90.0 - 0.5
        trend = torch.stack([torch.ones_like(x), t, t.square(), x, x * t], 1) * scale
        values = lines.double() * scale
        rest = values - torch.stack([trend @ least_squares(trend, column) for column in values.unbind(1)], 1)
        most = _FARTHEST * _NORMAL * rest.abs().median(0).values  # one shower with a far line does not decide
        rest = rest.clamp(-most, most)
        return torch.stack([torch.cov(rest[:, :2].T), torch.cov(rest[:, 2:].T)])

    @torch.no_grad()
    def fit(self, missing: Tensor, depth: Tensor) -> None:
        """Set the displacement to have covariances (2, 2, 2), as far as these are ones, about a depth, mm."""
        self.depth.fill_(float(depth))
        for axis, matrix in enumerate(missing):
            unit = matrix.diagonal().abs().clamp_min(1e-12).sqrt()
            values, vectors = torch.linalg.eigh(matrix / (unit[:, None] * unit))
            self.root[axis] = (unit[:, None] * vectors * values.clamp_min(0.0).sqrt()).to(self.root)

    @torch.no_grad()
    def correct(self, wanted: Tensor, before: Tensor, after: Tensor) -> None:
        """Scale the displacement so that covariances (2, 2, 2) become the wanted ones, after what it made of those before."""
        for axis in range(2):
            change = (after[axis] - before[axis]).diagonal().clamp_min(1e-12)
            factor = ((wanted[axis] - before[axis]).diagonal().clamp_min(0.0) / change).sqrt()
            self.root[axis] *= factor.clamp(1.0 / _MOST_CHANGE, _MOST_CHANGE)[:, None].to(self.root)


class AxisDecoder(nn.Module):
    """Latents to the share of each cell in the visible energy, see the module.

    ``inputs``: latents, noise and conditions together; ``features``: maps beside the shares.
    """

    def __init__(
        self, detector: Detector, inputs: int, features: int, width: int = 256, channels: int = 24
    ) -> None:
        super().__init__()
        nx, ny, n_layers = detector.shape
        self.shape = nx, ny, n_layers
        self.seed = (_SEED_CHANNELS, -(-nx // 8), -(-ny // 8), -(-n_layers // 8))
        self.maps = AxisMaps(detector)
        self.trunk = mlp(inputs, (width, width), width)
        self.along = nn.Linear(width, 2 * channels * n_layers)
        self.grid = nn.Linear(width, math.prod(self.seed))
        self.enlarge = nn.Sequential(
            nn.SiLU(), nn.ConvTranspose3d(_SEED_CHANNELS, _SEED_CHANNELS, 4, 2, 1),
            nn.SiLU(), nn.ConvTranspose3d(_SEED_CHANNELS, channels, 4, 2, 1),
        )  # fmt: skip
        self.basis = nn.Sequential(
            Pointwise(self.maps.size, channels), nn.SiLU(), Pointwise(channels, channels)
        )
        self.body = nn.Sequential(
            nn.SiLU(), nn.Conv3d(channels, 16, 3, padding=1),
            nn.SiLU(), nn.Conv3d(16, 16, 3, padding=1),
            nn.SiLU(),
        )  # fmt: skip
        self.skip = Pointwise(channels, 1)
        self.last = Pointwise(16, 1 + features)

    def forward(self, inputs: Tensor, theta: Tensor, moved: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return logarithms of the shares (B, X, Y, L) and further maps (B, features, X, Y, L).

        Of latents, noise and conditions (B, inputs), angles (B,), degrees, and displacements of the axis (2, B, L), mm.
        """
        n, (nx, ny, n_layers) = inputs.shape[0], self.shape
        hidden = functional.silu(self.trunk(inputs))
        factor, offset = self.along(hidden).view(n, -1, 1, 1, n_layers).chunk(2, 1)
        small = self.enlarge(self.grid(hidden).view(n, *self.seed))
        large = functional.interpolate(small, scale_factor=2.0, mode="nearest")[:, :, :nx, :ny, :n_layers]
        mixed = self.basis(self.maps(theta, moved)) * (1.0 + factor) + offset + large
        if mixed.device.type == "cpu" and not (torch.is_grad_enabled() or torch.compiler.is_exporting()):
            mixed = mixed.contiguous(memory_format=torch.channels_last_3d)  # faster there
        features = self.body(mixed)
        with torch.autocast(inputs.device.type, enabled=False):
            out = self.last(features.float())
            logits = out[:, :1] + self.skip(mixed.float())
        shares = torch.log_softmax(logits.flatten(1), 1).view(n, nx, ny, n_layers)
        return shares, out[:, 1:]


def uniform(normal: Tensor) -> Tensor:
    """Return tau of normal numbers."""
    return (0.5 * torch.erfc(-normal / math.sqrt(2.0))).clamp(_EDGE, 1.0 - _EDGE)


def _inside(tau: Tensor, logit: Tensor) -> Tensor:
    """Return the normal number of a hit's energy: of the place of tau above the probability of an empty cell."""
    empty = torch.sigmoid(-logit)
    inside = ((tau - empty) / (1.0 - empty).clamp_min(_EDGE)).clamp(_EDGE, 1.0 - _EDGE)
    return math.sqrt(2.0) * torch.erfinv(2.0 * inside - 1.0)


class CellSampler(nn.Module):
    """Sampler of cells, see the module; ``features``: maps beside the mean; ``conditions``: conditions of a shower."""

    def __init__(self, features: int, conditions: int, width: int = 32) -> None:
        super().__init__()
        self.local = Pointwise(1 + features, width)
        self.condition = nn.Linear(conditions, width)
        self.common = nn.Sequential(nn.SiLU(), Pointwise(width, width), nn.SiLU())
        self.hit = Pointwise(width, 1)
        self.noise = Pointwise(1, width, bias=False)
        self.energy = nn.Sequential(Pointwise(width, width), nn.SiLU(), Pointwise(width, 1))
        self.mixed = Pointwise(width, width)

    def describe(self, mean: Tensor, maps: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Return hidden features (B, width, X, Y, L) and the logit of p (B, X, Y, L).

        Of decoded mean energies (B, X, Y, L), MeV, further maps (B, features, X, Y, L) and conditions (B, k).
        """
        log = torch.log(mean.clamp_min(LOWEST) / UNIT)[:, None]
        local = self.local(torch.cat([log / 4.0, maps], 1))
        features = self.common(local + self.condition(conditions)[:, :, None, None, None])
        with torch.autocast(mean.device.type, enabled=False):
            logit = self.hit(features.float())[:, 0] + log[:, 0]
        return features, logit

    def quantile(self, features: Tensor, normal: Tensor) -> Tensor:
        """Return ln(e / 0.2 MeV) of hits: features (B, width, ...) and normal numbers (B, ...)."""
        mixed = functional.silu(self.mixed(features) + self.noise(normal[:, None]))
        with torch.autocast(features.device.type, enabled=False):
            value: Tensor = self.energy(mixed.float())
        return value[:, 0].clamp(-_REACH, _REACH)

    def forward(self, mean: Tensor, maps: Tensor, conditions: Tensor, noise: Tensor) -> Tensor:
        """Return cells (B, X, Y, L), MeV, for normal numbers of the cells (B, X, Y, L)."""
        if not (torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.compiler.is_exporting()):
            return self.sparse(mean, maps, conditions, noise)
        features, logit = self.describe(mean, maps, conditions)
        tau = uniform(noise)
        over = logit + torch.logit(tau)
        hit = (over > 0).float()
        soft = torch.sigmoid(over / _TEMPERATURE)
        gate = hit + soft - soft.detach()
        return gate * UNIT * torch.exp(self.quantile(features, _inside(tau, logit.detach())))

    def sparse(self, mean: Tensor, maps: Tensor, conditions: Tensor, noise: Tensor) -> Tensor:
        """Return the same by the networks of cells that may be hits, and of hits."""
        log = torch.log(mean.clamp_min(LOWEST) / UNIT).flatten(1)
        tau = uniform(noise).flatten(1)
        shower, cell = self.may_be_hit(log, torch.logit(tau)).nonzero(as_tuple=True)
        cells = torch.zeros_like(mean).flatten(1)
        log, tau = log[shower, cell], tau[shower, cell]
        inputs = torch.cat([log[None] / 4.0, maps.flatten(2)[shower, :, cell].T])[None]
        hidden = self.local(inputs)[0] + self.condition(conditions)[shower].T
        hit, features, normal = self.hits(hidden, log, tau)
        cells[shower[hit], cell[hit]] = self.energies(features, normal).to(cells)
        return cells.view_as(mean)

    @staticmethod
    def may_be_hit(log: Tensor, level: Tensor) -> Tensor:
        """Return whether cells are looked at, of ln(mean / 0.2 MeV) and logit(tau), of shapes that broadcast.

        The networks add h to ln(mean / 0.2 MeV) and get the logit of p: a cell is looked at where it is a hit for some h below 3, or
        where its mean is not small. (Where it is, h was below 0.8 in all of a million cells of the shipped model.)
        """
        return log + level.clamp_min(0.0) > -_MARGIN

    def hits(self, hidden: Tensor, log: Tensor, tau: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return which cells are hits (k,), their features (width, k) and the normal numbers of their energies (k,).

        Of cells (n,) with hidden features (width, n) before the first rectifier, ln(mean / 0.2 MeV) (n,) and tau (n,).
        """
        features = self.common(hidden[None])
        logit = self.hit(features)[0, 0] + log
        hit = (logit + torch.logit(tau) > 0).nonzero()[:, 0]
        return hit, features[0, :, hit], _inside(tau[hit], logit[hit])

    def energies(self, features: Tensor, normal: Tensor) -> Tensor:
        """Return the energies (k,), MeV, of hits with features (width, k) and normal numbers (k,)."""
        return UNIT * torch.exp(self.quantile(features[None], normal[None])[0])

    def losses(
        self, mean: Tensor, maps: Tensor, conditions: Tensor, cells: Tensor, normal: Tensor
    ) -> dict[str, Tensor]:
        """Return the losses of p and of q, sums over cells and means over showers.

        Arguments:
            mean, maps, conditions: See :meth:`describe`.
            cells: True cells (B, X, Y, L), MeV.
            normal: Normal numbers (B, k) of the quantiles, which are trained at the k largest cells of each shower.
        """
        features, logit = self.describe(mean, maps, conditions)
        n = len(cells)
        hits = functional.binary_cross_entropy_with_logits(logit, (cells > 0).float(), reduction="sum") / n
        top, where = torch.topk(cells.flatten(1), normal.shape[1], dim=1)
        chosen = features.flatten(2).gather(2, where[:, None].expand(-1, features.shape[1], -1))
        q = self.quantile(chosen[..., None, None], normal[..., None, None])[..., 0, 0]
        true = torch.log(top.clamp_min(UNIT * math.exp(-_REACH)) / UNIT)
        tau = 0.5 * torch.erfc(-normal / math.sqrt(2.0))
        off = true - q
        pinball = torch.where(top > 0, off * (tau - (off < 0).float()), torch.zeros_like(off))
        return {"hits": hits, "energies": pinball.sum() / n}
