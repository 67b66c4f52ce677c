r"""Training of a two-sample classifier: split, standardise, train, choose, calibrate, score.

Reference showers carry the label 0, generated ones 1. Each network has a split of its own, drawn from its
seed: 60 % to train, 20 % to choose the epoch and to calibrate, 20 % held out. Logits are calibrated on the
validation part by :math:`\sigma(a z + b)` (Platt's scaling). On the held-out part, with calibrated
probability :math:`s` of being generated,

.. math:: \mathrm{JSD} = 1 + \frac12 \left( \langle \log_2 (1 - s) \rangle_{ref} + \langle \log_2 s \rangle_{gen} \right)

is a lower bound of the Jensen-Shannon divergence in bits (0: equal, 1: disjoint); it may come out slightly
negative for equal samples. The AUC's error is DeLong's.

References:
    C. Krause, D. Shih, CaloFlow, arXiv:2106.05285; O. Amram et al., CaloChallenge 2022, arXiv:2410.21611;
    E. R. DeLong et al., Biometrics 44 (1988) 837; J. Platt, Advances in large margin classifiers (1999) 61.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import TooFewShowersError
from caloforge.random import child_seed, generator
from caloforge.validate.metrics.threads import threads_for

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "PRESETS",
    "Scores",
    "TrainingOptions",
    "auc_with_error",
    "calibrate",
    "divergence_bits",
    "train_once",
]

_TRAIN, _VALIDATE = 0.6, 0.2
_SMALLEST_BATCH, _STEPS = 16, 20  # small samples: at least so many steps in a pass
FEWEST = 50  # showers a side, so that ten are held out


@dataclass(frozen=True)
class TrainingOptions:
    """How a classifier is trained.

    Attributes:
        width: Neurons of each hidden layer.
        learning_rate: Adam's; with ``one_cycle`` its peak.
        batch: Most showers a step; fewer for samples that would have less than 20 steps in a pass.
        epochs: Most passes over the training part.
        patience: Passes without a better validation loss after which it stops; None never stops.
        by_accuracy: Choose the epoch by validation accuracy and not by validation loss.
        weight_decay: Decoupled weight decay.
        dropout: Fraction of hidden neurons dropped while training.
    """

    width: int
    learning_rate: float
    batch: int
    epochs: int
    patience: int | None
    by_accuracy: bool
    weight_decay: float = 0.0
    dropout: float = 0.0


PRESETS: dict[str, TrainingOptions] = {
    "fast": TrainingOptions(256, 1e-3, 256, 25, 6, by_accuracy=False, weight_decay=1e-2, dropout=0.4),
    "calochallenge": TrainingOptions(2048, 2e-4, 1000, 50, None, by_accuracy=True),
}


@dataclass(frozen=True)
class Scores:
    """What one trained classifier says of its held-out part.

    Attributes:
        auc: Area under the ROC curve.
        auc_error: Its statistical error.
        jsd: Jensen-Shannon divergence, bits, from calibrated probabilities.
        jsd_error: Its statistical error.
        epochs: Passes trained; ``best`` the one chosen, counted from 1.
        best: See ``epochs``.
        held_out: Held-out showers a side.
    """

    auc: float
    auc_error: float
    jsd: float
    jsd_error: float
    epochs: int
    best: int
    held_out: int


def auc_with_error(reference: ArrayLike, generated: ArrayLike) -> tuple[float, float]:
    """Return the area under the ROC curve and DeLong's error.

    Arguments:
        reference: Scores (N,) of label 0.
        generated: Scores (M,) of label 1.
    """
    from scipy.stats import rankdata

    a, b = np.asarray(reference, np.float64), np.asarray(generated, np.float64)
    ranks = rankdata(np.concatenate([a, b]))
    above = (ranks[a.size :] - rankdata(b)) / a.size  # reference scores below each generated one
    below = 1.0 - (ranks[: a.size] - rankdata(a)) / b.size
    variance = above.var(ddof=1) / b.size + below.var(ddof=1) / a.size if min(a.size, b.size) > 1 else np.nan
    return float(above.mean()), float(np.sqrt(variance))


def calibrate(logits: ArrayLike, labels: ArrayLike, steps: int = 50) -> tuple[float, float]:
    """Return slope and offset that make ``sigmoid(slope * logit + offset)`` the most likely probability.

    Newton's method on the cross entropy; Platt's smoothed targets keep it finite for separable samples.

    Arguments:
        logits: Scores (N,).
        labels: 0 or 1 (N,).
        steps: Most Newton steps.
    """
    z, y = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    ones, zeros = float(y.sum()), float((1.0 - y).sum())
    target = np.where(y > 0.5, (ones + 1.0) / (ones + 2.0), 1.0 / (zeros + 2.0))
    design = np.stack([z, np.ones_like(z)], axis=1)
    theta = np.zeros(2)

    def loss(t: NDArray[np.float64]) -> float:
        u = design @ t
        return float(np.sum(np.logaddexp(0.0, u) - target * u))

    for _ in range(steps):
        p = _sigmoid(design @ theta)
        gradient = design.T @ (p - target)
        curvature = (design * (p * (1.0 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step, size = np.linalg.solve(curvature, gradient), 1.0
        while loss(theta - size * step) > loss(theta) and size > 1e-6:
            size *= 0.5
        theta = theta - size * step
        if np.abs(size * step).max() < 1e-8:
            break
    return float(theta[0]), float(theta[1])


def _sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    out: NDArray[np.float64] = 0.5 * (1.0 + np.tanh(0.5 * z))
    return out


def divergence_bits(reference: ArrayLike, generated: ArrayLike) -> tuple[float, float]:
    """Return the Jensen-Shannon divergence in bits and its error, from calibrated logits (N,) and (M,)."""
    a = -np.logaddexp(0.0, np.asarray(reference, np.float64)) / np.log(2.0)
    b = -np.logaddexp(0.0, -np.asarray(generated, np.float64)) / np.log(2.0)
    error = 0.5 * np.sqrt(a.var(ddof=1) / a.size + b.var(ddof=1) / b.size)
    return float(1.0 + 0.5 * (a.mean() + b.mean())), float(error)


def _split(n: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], ...]:
    """Return indices of the training, validation and held-out parts of ``n`` showers of one side."""
    order = rng.permutation(n)
    first, second = int(_TRAIN * n), int((_TRAIN + _VALIDATE) * n)
    return order[:first], order[first:second], order[second:]


def train_once(
    reference: NDArray[np.float32],
    generated: NDArray[np.float32],
    build: Callable[[torch.Tensor], nn.Module],
    options: TrainingOptions,
    seed: int,
    device: str = "cpu",
) -> Scores:
    """Train one classifier and score its held-out part.

    Arguments:
        reference: Inputs (N, d), label 0.
        generated: Inputs (N, d), label 1.
        build: Makes the network from the training inputs (for its standardisation); maps (B, d) to logits (B,).
        options: How to train.
        seed: Seed of split, initial weights and batches.
        device: Where to train.

    Raises:
        TooFewShowersError: With fewer than 50 showers a side.
    """
    import torch

    n = min(len(reference), len(generated))
    if n < FEWEST:
        msg = f"a classifier needs at least {FEWEST} showers a side, there are {n}"
        raise TooFewShowersError(msg)
    rng = generator(seed, "classifier split")
    parts = list(zip(_split(n, rng), _split(n, rng), strict=True))
    sets = [
        torch.from_numpy(np.concatenate([reference[a], generated[b]])).to(device, torch.float32)
        for a, b in parts
    ]
    labels = [np.repeat([0.0, 1.0], [len(a), len(b)]) for a, b in parts]
    with torch.random.fork_rng(devices=[] if device == "cpu" else None):
        torch.manual_seed(child_seed(seed, "classifier weights"))
        network = build(sets[0]).to(device)
        with threads_for(_operations(network, sets[0], options)):
            epochs, best = _fit(network, sets, labels, options, child_seed(seed, "classifier batches"))
            validation, held_out = _logits(network, sets[1]), _logits(network, sets[2])
    slope, offset = calibrate(validation, labels[1])
    of_reference, of_generated = held_out[labels[2] < 0.5], held_out[labels[2] > 0.5]
    of_reference, of_generated = slope * of_reference + offset, slope * of_generated + offset
    auc, auc_error = auc_with_error(of_reference, of_generated)
    jsd, jsd_error = divergence_bits(of_reference, of_generated)
    return Scores(auc, auc_error, jsd, jsd_error, epochs, best, len(of_reference))


def _operations(network: nn.Module, x: torch.Tensor, options: TrainingOptions) -> float:
    """Return the operations of a step: six for each weight and shower; without end for convolutions."""
    if any(parameter.ndim > 2 for parameter in network.parameters()):
        return float("inf")
    return 6.0 * sum(p.numel() for p in network.parameters()) * _batch(len(x), options)


def _batch(n: int, options: TrainingOptions) -> int:
    """Return the showers of a step when ``n`` are trained on."""
    return min(options.batch, max(_SMALLEST_BATCH, n // _STEPS))


def _logits(network: nn.Module, x: torch.Tensor, batch: int = 1024) -> NDArray[np.float64]:
    import torch

    network.eval()
    with torch.no_grad():
        out = torch.cat([network(part) for part in torch.split(x, batch)])
    result: NDArray[np.float64] = out.double().cpu().numpy()
    return result


def _fit(
    network: nn.Module,
    sets: list[torch.Tensor],
    labels: list[NDArray[np.float64]],
    options: TrainingOptions,
    seed: int,
) -> tuple[int, int]:
    """Train; leave the best epoch's weights in the network. Return epochs trained and the best one."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    x, y = sets[0], torch.from_numpy(labels[0]).to(sets[0])
    shuffle = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        network.parameters(), options.learning_rate, weight_decay=options.weight_decay, fused=True
    )
    batch = _batch(len(x), options)
    best, best_epoch, state = -np.inf, 0, {}
    for epoch in range(1, options.epochs + 1):
        network.train()
        for rows in torch.split(torch.randperm(len(x), generator=shuffle), batch):
            if len(rows) < 2:
                continue
            picked = rows.to(x.device)
            optimizer.zero_grad(set_to_none=True)
            loss = binary_cross_entropy_with_logits(network(x[picked]), y[picked])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        quality = _quality(_logits(network, sets[1]), labels[1], options.by_accuracy)
        if quality > best:
            best, best_epoch = quality, epoch
            state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        elif options.patience is not None and epoch - best_epoch >= options.patience:
            break
    network.load_state_dict(state)
    return epoch, best_epoch


def _quality(logits: NDArray[np.float64], labels: NDArray[np.float64], by_accuracy: bool) -> float:
    if by_accuracy:
        return float(np.mean((logits > 0) == (labels > 0.5)))
    return -float(np.mean(np.logaddexp(0.0, logits) - labels * logits))
