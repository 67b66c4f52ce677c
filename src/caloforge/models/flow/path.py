r"""Flow matching: the path from noise to data, its loss and integration, and estimates of cells that are empty or filled.

On the straight path x_t = (1 - t) x_0 + t x_1 from noise x_0 ~ N(0, 1) to data x_1 a network estimates the data, D(x_t, t), which
gives the velocity v = (D - x_t) / (1 - t). Its loss is that of the velocity,

.. math:: \frac{|D(x_t, t) - x_1|^2}{\max(1 - t, \epsilon)^2},

averaged over t = sigmoid(m + s g), g normal. Generation integrates dx/dt = v from 0 to 1 with Heun's method; the last step
is Euler's, whose result is D itself.

For numbers of mean 0 and width 1 the best linear estimate of x_1 and the error that it leaves are

.. math:: L = \frac{t x_t}{t^2 + (1 - t)^2}, \qquad c = \frac{1 - t}{\sqrt{t^2 + (1 - t)^2}},

and the estimate is D = L + c F with the network's output F, as in EDM, which is of order one at all times.

The value of a cell is -1 (empty) with probability 1 - p, or normal with mean mu and width sigma. Seen as x_t = (1 - t) x_0 + t x_1 with
noise x_0, the posterior mean of x_1 is, in closed form,

.. math:: D = (1 - w)(-1) + w \left[\mu + \frac{t \sigma^2}{t^2 \sigma^2 + (1 - t)^2} (x_t - t \mu)\right], \qquad
          w = \mathrm{sigmoid}\!\left(\ln\frac{p}{1 - p} + \ln\frac{N(x_t; t\mu, t^2\sigma^2 + (1-t)^2)}{N(x_t; -t, (1-t)^2)}\right).

A network predicts ln p/(1-p), mu and ln sigma of each cell, relative to their averages over the training showers. The information of
a noisy value on its own cell then needs no weights and does not pass the narrow tokens of a transformer; the network adds that of the rest of
the shower. With outputs of 0 the estimate is the best one for independent cells.

References:
    Y. Lipman et al., "Flow matching for generative modeling", arXiv:2210.02747.
    P. Esser et al., arXiv:2403.03206 (logit-normal times).
    T. Karras et al., "Elucidating the design space of diffusion-based generative models", arXiv:2206.00364 (EDM).
    T. Li, K. He, "Back to basics: let denoising generative models denoise", arXiv:2511.13720 (data prediction, velocity loss).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "EMPTY",
    "NOISE",
    "CellAverages",
    "Denoiser",
    "LayerBalance",
    "SpikeSlab",
    "Time",
    "at_time",
    "flow_loss",
    "follow",
    "heun",
    "integrate",
    "jump",
    "preconditioned",
    "rowwise_heun",
    "time_grid",
]


Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(x (B, ...), t (B,)) -> the estimate of the data (B, ...)."""

_LEAST = 0.05
_UNROLLED = 2  # most steps that a graph has one after the other, not in a loop


def flow_loss(denoise: Denoiser, data: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """Return the loss of the velocity for data x_1 and noise x_0 (B, ...) at times (B,), a mean over everything."""
    t = times.view(-1, *[1] * (data.dim() - 1))
    found = denoise((1 - t) * noise + t * data, times).float()
    return ((found - data) / (1 - t).clamp_min(_LEAST)).square().mean()


def preconditioned(x: Tensor, time: Tensor, output: Tensor) -> Tensor:
    """Return the estimate D (B, ...) of standardised data from x_t (B, ...) at times (B,) and a network's output F (B, ...)."""
    t = time.view(-1, *[1] * (x.dim() - 1))
    norm = t.square() + (1.0 - t).square()
    return t / norm * x + (1.0 - t) * norm.rsqrt() * output


def time_grid(steps: int, shift: float = 1.0) -> tuple[float, ...]:
    """Return steps + 1 times from 0 to 1; ``shift`` below 1 puts more of them near 0, above 1 near 1."""
    line = [k / steps for k in range(steps + 1)]
    return tuple(u * shift / (1.0 + (shift - 1.0) * u) for u in line)


Time = float | Tensor
"""A number, or a tensor () in the loop of a graph that is traced for export, which never reaches 1."""


def at_time(x: Tensor, time: Time) -> Tensor:
    """Return a time for each row (B,) of x (B, ...)."""
    if isinstance(time, Tensor):
        return time.expand(x.shape[0])
    return x.new_full((x.shape[0],), time)


def jump(denoise: Denoiser, x: Tensor, start: Time, end: Time) -> Tensor:
    """Return x at time ``end`` from x at ``start`` by one Euler step."""
    found = denoise(x, at_time(x, start)).to(x.dtype)
    return torch.lerp(x, found, (end - start) / (1.0 - start))


def heun(denoise: Denoiser, x: Tensor, start: Time, end: Time) -> Tensor:
    """Return x at time ``end`` by one step of Heun's method: two evaluations, one where it ends at 1."""
    ahead = jump(denoise, x, start, end)
    if isinstance(end, float) and end >= 1.0:
        return ahead
    found = denoise(ahead, at_time(x, end)).to(x.dtype)
    velocity = (found - ahead) / (1.0 - end)
    return 0.5 * (x + ahead + (end - start) * velocity)


def integrate(denoise: Denoiser, x: Tensor, times: Sequence[float]) -> Tensor:
    """Integrate x over rising times up to 1 with Heun's method."""
    return follow(lambda x, start, end: heun(denoise, x, start, end), x, times)


def follow(step: Callable[[Tensor, Time, Time], Tensor], x: Tensor, times: Sequence[float]) -> Tensor:
    """Return x (B, ...) after ``step``, a function of x, start and end, over rising times up to 1.

    A graph that is traced for export has two copies of the step, one in a loop and one that ends at 1, not one for each step.
    """
    steps = list(pairwise(times))
    if torch.compiler.is_exporting() and len(steps) > _UNROLLED:
        from torch._higher_order_ops.scan import scan

        def body(x: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
            return step(x, times[0], times[1]).contiguous(), times[:1].clone()

        x, _ = scan(body, x.contiguous(), torch.tensor(steps[:-1], dtype=x.dtype, device=x.device))
        steps = steps[-1:]
    for start, end in steps:
        x = step(x, start, end)
    return x


def rowwise_heun(denoise: Denoiser, x: Tensor, start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Integrate each row of x (B, ...) over its own interval with the same number of Heun steps.

    ``start`` and ``end`` are times (B,), the end at most 1; a step that ends at 1 is Euler's.
    """
    shape = (-1, *[1] * (x.dim() - 1))
    width = (end - start) / steps
    step = width.view(shape)
    for number in range(steps):
        now, later = start + number * width, start + (number + 1) * width
        velocity = (denoise(x, now).to(x.dtype) - x) / (1.0 - now).view(shape)
        ahead = x + step * velocity
        inside = (later < 1.0 - 1e-4).view(shape)
        rest = (1.0 - later).clamp_min(1e-3).view(shape)
        second = (denoise(ahead, later.clamp_max(1.0)).to(x.dtype) - ahead) / rest
        x = torch.where(inside, x + 0.5 * step * (velocity + second), ahead)
    return x


EMPTY = -1.0
"""Value of an empty cell."""
NOISE = 0.02
"""Least noise in the likelihoods, for times near 1."""
_RARE = 1e-6
_PRIOR = 20.0  # weight of the mean over all cells in the mean of one, in showers
_REACH = 3.0
"""Largest change of a width's logarithm."""
_MOST = 40.0


class CellAverages(nn.Module):
    """Averages of cells over the training showers."""

    logit: Tensor  # (n_cells,) ln p/(1-p)
    centre: Tensor  # (n_cells,) mean of filled values
    spread: Tensor  # (n_cells,) their width

    def __init__(self, n_cells: int) -> None:
        super().__init__()
        self.register_buffer("logit", torch.zeros(n_cells))
        self.register_buffer("centre", torch.ones(n_cells))
        self.register_buffer("spread", torch.ones(n_cells))

    @torch.no_grad()
    def fit(self, values: Tensor, filled: Tensor, core: Tensor, adapt: bool = False) -> None:
        """Set the averages from values and filled cells (N, n_cells), rare ones shrunk; ``core`` cells have no empty value.

        They are shrunk towards the mean over all cells, or with ``adapt`` towards the averages that there are.
        """
        weight = filled.float()
        weight[:, core] = 1.0
        count = weight.sum(0)
        whole = weight.sum().clamp_min(1.0)
        middle = (values * weight).sum() / whole
        width = ((values - middle).square() * weight).sum() / whole
        worth, p = torch.ones_like(count), torch.full_like(count, 0.2)
        if adapt:
            old = self.logit < _MOST
            middle, width = (
                torch.where(old, self.centre, middle),
                torch.where(old, self.spread.square(), width),
            )
            worth, p = torch.where(old, _PRIOR, worth), torch.where(old, torch.sigmoid(self.logit), p)
        centre = ((values * weight).sum(0) + _PRIOR * middle) / (count + _PRIOR)
        square = ((values - centre).square() * weight).sum(0)
        p = ((count + worth * p) / (len(values) + worth)).clamp_max(1.0 - 1e-5)
        logit = torch.log(p / (1.0 - p))
        logit[core] = _MOST
        self.logit.copy_(logit)
        self.centre.copy_(centre)
        self.spread.copy_(((square + _PRIOR * width) / (count + _PRIOR)).sqrt().clamp_min(0.05))


class SpikeSlab(CellAverages):
    """Posterior means of cells that are empty or filled."""

    outputs = 3  # outputs of the network for each cell

    def forward(self, x: Tensor, time: Tensor, outputs: tuple[Tensor, ...]) -> Tensor:
        """Return the estimate (B, n_cells) of x_t (B, n_cells) at times (B,).

        The outputs (B, n_cells) change the logit, the mean (in widths) and the logarithm of the width.
        """
        odds, filled, _ = self.posterior(x, time, outputs)
        return EMPTY + torch.sigmoid(odds) * (filled - EMPTY)

    def posterior(
        self, x: Tensor, time: Tensor, outputs: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the log odds of a filled cell, and mean and variance of its value if it is filled, (B, n_cells) each."""
        change, shift, stretch = outputs
        t = time[:, None]
        spread = self.spread * torch.exp(_REACH * torch.tanh(stretch / _REACH))
        centre = self.centre + self.spread * shift
        noise = (1.0 - t).square() + NOISE**2
        square = spread.square()
        variance = t.square() * square + noise
        slab = (x - t * centre).square() / variance + torch.log(variance)
        spike = (x - t * EMPTY).square() / noise + torch.log(noise)
        odds = (self.logit + change + 0.5 * (spike - slab)).clamp(-_MOST, _MOST)
        return odds, centre + t * square / variance * (x - t * centre), square * noise / variance

    def loss(self, x: Tensor, time: Tensor, outputs: tuple[Tensor, ...], data: Tensor) -> Tensor:
        """Return the negative logarithm of the posterior's density at the data (B, n_cells), a mean over the cells, in nats."""
        odds, mean, variance = self.posterior(x, time, outputs)
        filled = (data > EMPTY) | (self.logit >= _MOST)
        occupied = functional.softplus(torch.where(filled, -odds, odds))
        value = 0.5 * ((data - mean).square() / variance + torch.log(variance))
        return (occupied + torch.where(filled, value, 0.0)).mean()

    def advance(
        self, x: Tensor, outputs: tuple[Tensor, ...], start: Time, end: Time, substeps: int
    ) -> Tensor:
        """Return x (B, n_cells) at ``end`` from x at ``start`` along the flow of each cell under constant outputs.

        Heun's method; a cell leaves the boundary between empty and filled far faster than the outputs change.
        """
        times = [start + (end - start) * k / substeps for k in range(substeps)] + [end]
        for first, last in pairwise(times):
            x = heun(lambda x, t: self(x, t[:1], outputs), x, first, last)
        return x

    def draw(
        self, x: Tensor, outputs: tuple[Tensor, ...], start: float, end: float, normal: Tensor
    ) -> Tensor:
        """Return x (B, n_cells) at ``end``: each cell drawn from its posterior at ``start``, with its noise on its straight path.

        A normal number of each cell (B, n_cells) says whether the cell is filled and what its value is.
        """
        odds, mean, variance = self.posterior(x, x.new_full((1,), start), outputs)
        p, level = torch.sigmoid(odds), torch.special.ndtr(normal)
        inside = (level / p.clamp_min(_RARE)).clamp(_RARE, 1.0 - _RARE)
        value = mean + variance.sqrt() * torch.special.ndtri(inside)
        data = torch.where(level < p, value, EMPTY)
        kept = (1.0 - end) / (1.0 - start)
        return kept * x + (end - start * kept) * data


_NEWTON = 3  # steps of Newton's method
_LEAST_SLOPE = 0.3  # least variance of a layer's number of filled cells
_LARGEST = 1.0  # largest step of the log odds
_MOST_CHANGE = 4.0  # largest change of log odds


class LayerBalance(nn.Module):
    r"""The change of log odds, the same for all cells of a layer, with which a layer expects a given number of filled cells.

    Of all distributions with that mean number it is the one nearest to independent cells of these odds (in relative entropy). It solves
    :math:`\sum_i \mathrm{sigmoid}(o_i + \delta) = n` by Newton's method.
    """

    layer: Tensor

    def __init__(self, layer: Tensor, n_layers: int) -> None:
        super().__init__()
        self.n_layers = n_layers
        self.register_buffer("layer", layer, persistent=False)

    def forward(self, odds: Tensor, filled: Tensor) -> Tensor:
        """Return the changes (B, n_cells) of log odds (B, n_cells) for ``filled`` cells of each layer (B, n_layers)."""
        change = torch.zeros_like(filled)
        for _ in range(_NEWTON):
            p = torch.sigmoid(odds + change.index_select(1, self.layer))
            sums, slopes = (
                torch.zeros_like(filled).index_add_(1, self.layer, part) for part in (p, p * (1.0 - p))
            )
            step = (filled - sums) / slopes.clamp_min(_LEAST_SLOPE)
            change = (change + step.clamp(-_LARGEST, _LARGEST)).clamp(-_MOST_CHANGE, _MOST_CHANGE)
        return change.index_select(1, self.layer)
