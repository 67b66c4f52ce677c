"""Training of two-sample classifiers: networks with early stopping, and gradient boosting.

Reference rows have the label 0, generated ones 1. :func:`train_once` splits both samples by its seed: 60 % to train, 20 % to choose the
epoch and to calibrate, 20 % held out. Batches are gathered from the two samples, which are in memory once.

References:
    C. Krause, D. Shih, CaloFlow, arXiv:2106.05285; C. Krause et al., CaloChallenge 2022, arXiv:2410.21611; J. H. Friedman, Greedy
    function approximation: a gradient boosting machine, Annals of Statistics 29 (2001) 1189; G. Ke et al., LightGBM, NeurIPS 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import TooFewShowersError, require
from caloforge.random import child_seed, generator
from caloforge.statistics.two_sample import Array, Scorer, auc_with_error, calibrate, divergence_bits

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "FEWEST",
    "PRESETS",
    "Builder",
    "Scores",
    "TrainingOptions",
    "fit_boosting",
    "fit_network",
    "train_once",
]

Inputs: TypeAlias = NDArray[np.float32]

Builder: TypeAlias = "Callable[[torch.Tensor], nn.Module]"
"""Makes a network from the training inputs (N, d), for its standardisation; it maps (B, d) to logits (B,)."""

FEWEST = 50
"""Showers a side, so that ten are held out."""
_TRAIN, _VALIDATE = 0.6, 0.2
_SMALLEST_BATCH, _STEPS = 16, 20  # small samples: at least so many steps in an epoch
_WORTH_SHARING = 1e9  # operations of a step, about 20 ms of one core
_ROWS = 1024  # scored at once


@dataclass(frozen=True)
class TrainingOptions:
    """Settings of the training of a network."""

    width: int
    """Neurons of each hidden layer."""
    learning_rate: float
    batch: int
    """Most showers a step; fewer for samples that would have less than 20 steps in an epoch."""
    epochs: int
    patience: int | None
    """Epochs without a better validation loss after which it stops; None never stops."""
    by_accuracy: bool
    """Whether the epoch is chosen by validation accuracy and not by validation loss."""
    weight_decay: float = 0.0
    dropout: float = 0.0
    standardise: bool = True
    """Whether the inputs are standardised with the training part."""


PRESETS: dict[str, TrainingOptions] = {
    "fast": TrainingOptions(256, 1e-3, 256, 25, 6, by_accuracy=False, weight_decay=1e-2, dropout=0.4),
    "calochallenge": TrainingOptions(2048, 2e-4, 1000, 50, None, by_accuracy=True, standardise=False),
}


@dataclass(frozen=True)
class Scores:
    """AUC and Jensen-Shannon divergence (bits, from calibrated probabilities) of the held-out part, with statistical errors."""

    auc: float
    auc_error: float
    jsd: float
    jsd_error: float
    epochs: int
    best: int
    """The epoch chosen, counted from 1."""
    held_out: int
    """Held-out showers a side."""


def fit_boosting(
    x: Inputs, labels: Array, x_validation: Inputs, labels_validation: Array, seed: int
) -> Scorer:
    """Train a gradient boosting of decision trees and return the function that scores rows.

    Histogram-based boosting with 8 leaves a tree and a learning rate of 0.15; it stops when the logarithmic loss of the validation part
    has not improved for 15 trees. Larger trees and lower rates gained nothing on showers of the shipped models and took two to four
    times as long. Trees send a missing value (NaN) to the side that separates better.

    Arguments:
        x, x_validation: Features (N, d) and (M, d), NaN where there is no value.
        labels, labels_validation: 0 or 1, (N,) and (M,).
        seed: Seed of the trees.

    Raises:
        MissingExtraError: When scikit-learn is not installed.
    """
    model = require("sklearn.ensemble", "eval").HistGradientBoostingClassifier(
        learning_rate=0.15,
        max_iter=300,
        max_leaf_nodes=8,
        min_samples_leaf=20 if len(x) >= 1000 else max(3, len(x) // 50),
        l2_regularization=1.0,
        early_stopping=True,
        n_iter_no_change=15,
        random_state=seed,
    )
    model.fit(x, labels, X_val=x_validation, y_val=labels_validation)
    return lambda rows: np.asarray(model.decision_function(rows), np.float64)


def fit_network(
    x: Inputs,
    labels: Array,
    x_validation: Inputs,
    labels_validation: Array,
    seed: int,
    build: Builder,
    options: TrainingOptions,
    device: str = "cpu",
) -> Scorer:
    """Train a network on given parts and return the function that scores rows (N, d) by their logits (N,).

    Arguments:
        x, labels: Training inputs (N, d), and 0 or 1 (N,).
        x_validation, labels_validation: Inputs (M, d) that choose the epoch, and their labels (M,).
        seed: Seed of initial weights and batches.
        build, options, device: The network, how to train it, and where.
    """
    parts = [_Part.of_labels(*some, device) for some in ((x, labels), (x_validation, labels_validation))]
    network, _, _ = _train(build, parts, options, seed, device)

    def score(rows: Inputs) -> Array:
        with threads_for(_operations(network, len(rows), options)):
            return _logits(network, _Part.of_labels(rows, np.zeros(len(rows)), device))

    return score


def train_once(
    reference: Inputs,
    generated: Inputs,
    build: Builder,
    options: TrainingOptions,
    seed: int,
    device: str = "cpu",
) -> Scores:
    """Train one network on inputs (N, d) of both samples and score its held-out part.

    The seed fixes split, initial weights and batches.

    Raises:
        TooFewShowersError: With fewer than 50 showers a side.
    """
    import torch

    n = min(len(reference), len(generated))
    if n < FEWEST:
        msg = f"a classifier needs at least {FEWEST} showers a side, there are {n}"
        raise TooFewShowersError(msg)
    rng = generator(seed, "classifier split")
    sides = [
        torch.from_numpy(np.ascontiguousarray(x)).to(device, torch.float32) for x in (reference, generated)
    ]
    cuts = [int(_TRAIN * n), int((_TRAIN + _VALIDATE) * n)]
    rows = [np.split(rng.permutation(n), cuts) for _ in sides]
    parts = [_Part(sides[0], sides[1], a, b) for a, b in zip(*rows, strict=True)]
    network, epochs, best = _train(build, parts[:2], options, seed, device)
    with threads_for(_operations(network, len(parts[0]), options)):
        validation, held_out = _logits(network, parts[1]), _logits(network, parts[2])
    slope, offset = calibrate(validation, parts[1].labels)
    of_reference, of_generated = np.split(slope * held_out + offset, [parts[2].n_reference])
    auc, jsd = auc_with_error(of_reference, of_generated), divergence_bits(of_reference, of_generated)
    return Scores(*auc, *jsd, epochs, best, len(of_reference))


@contextmanager
def threads_for(operations: float) -> Iterator[None]:
    """Compute with one thread inside the block when a training step has few floating-point operations.

    Several threads wait for the slowest core: two busy cores trained the fast classifier ten times more slowly with two threads.
    """
    import torch

    before = torch.get_num_threads()
    if operations < _WORTH_SHARING:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Part:
    """Rows ``first`` (n,) of the reference and ``second`` (n,) of the generated sample, gathered a batch at a time."""

    def __init__(
        self,
        reference: torch.Tensor,
        generated: torch.Tensor,
        first: NDArray[np.int64],
        second: NDArray[np.int64],
    ) -> None:
        self.n_reference = len(first)
        self._sides = (reference, generated)
        self._rows = (first, second)
        self.labels = np.repeat([0.0, 1.0], [len(first), len(second)])

    @classmethod
    def of_labels(cls, x: Inputs, labels: Array, device: str) -> _Part:
        """Return all rows of inputs (N, d) with labels (N,)."""
        import torch

        sides = [torch.from_numpy(x[labels == label]).to(device, torch.float32) for label in (0.0, 1.0)]
        return cls(sides[0], sides[1], *(np.arange(len(side)) for side in sides))

    def __len__(self) -> int:
        return len(self.labels)

    def _gather(self, rows: tuple[NDArray[np.int64], ...]) -> torch.Tensor:
        """Return some rows of both samples in one matrix, without copies of its parts."""
        import torch

        first = self._sides[0]
        out = first.new_empty(sum(map(len, rows)), *first.shape[1:])
        start = 0
        for side, some in zip(self._sides, rows, strict=True):
            index = torch.from_numpy(some).to(side.device)
            torch.index_select(side, 0, index, out=out[start : start + len(some)])
            start += len(some)
        return out

    def batch(self, chosen: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the inputs (B, d) and labels (B,) of chosen places (B,), those of the reference first."""
        of_reference = chosen < self.n_reference
        rows = (
            self._rows[0][chosen[of_reference]],
            self._rows[1][chosen[~of_reference] - self.n_reference],
        )
        x = self._gather(rows)
        y = x.new_zeros(len(chosen))
        y[len(rows[0]) :] = 1.0
        return x, y

    def all(self) -> torch.Tensor:
        """Return all inputs (2 n, d)."""
        return self._gather(self._rows)


def _operations(network: nn.Module, n: int, options: TrainingOptions) -> float:
    """Return the operations of a step: six for each weight and shower; infinite for convolutions."""
    if any(parameter.ndim > 2 for parameter in network.parameters()):
        return float("inf")
    return 6.0 * sum(p.numel() for p in network.parameters()) * _batch(n, options)


def _batch(n: int, options: TrainingOptions) -> int:
    """Return the showers of a step when ``n`` are trained on."""
    return min(options.batch, max(_SMALLEST_BATCH, n // _STEPS))


def _logits(network: nn.Module, part: _Part) -> Array:
    import torch

    network.eval()
    with torch.no_grad():
        places = (np.arange(start, min(start + _ROWS, len(part))) for start in range(0, len(part), _ROWS))
        out = torch.cat([network(part.batch(some)[0]) for some in places])
    return np.asarray(out.double().cpu().numpy())


def _train(
    build: Builder, parts: list[_Part], options: TrainingOptions, seed: int, device: str
) -> tuple[nn.Module, int, int]:
    """Build and train a network on the training and validation part; return it, the epochs trained and the best one."""
    import torch

    with torch.random.fork_rng(devices=[] if device == "cpu" else None):
        torch.manual_seed(child_seed(seed, "classifier weights"))
        network = build(parts[0].all()).to(device)
        with threads_for(_operations(network, len(parts[0]), options)):
            epochs, best = _fit(network, parts, options, child_seed(seed, "classifier batches"))
    return network, epochs, best


def _fit(network: nn.Module, parts: list[_Part], options: TrainingOptions, seed: int) -> tuple[int, int]:
    """Train; leave the best epoch's weights in the network. Return epochs trained and the best one."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    rng = generator(seed, "classifier order")
    optimizer = torch.optim.AdamW(
        network.parameters(), options.learning_rate, weight_decay=options.weight_decay, fused=True
    )
    batch = _batch(len(parts[0]), options)
    best, best_epoch, state = -np.inf, 0, {}
    for epoch in range(1, options.epochs + 1):
        network.train()
        order = rng.permutation(len(parts[0]))
        for start in range(0, len(order) - 1, batch):
            x, y = parts[0].batch(order[start : start + batch])
            optimizer.zero_grad(set_to_none=True)
            loss = binary_cross_entropy_with_logits(network(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        logits, labels = _logits(network, parts[1]), parts[1].labels
        if options.by_accuracy:
            quality = float(np.mean((logits > 0) == (labels > 0.5)))
        else:
            quality = -float(np.mean(np.logaddexp(0.0, logits) - labels * logits))
        if quality > best:
            best, best_epoch = quality, epoch
            state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        elif options.patience is not None and epoch - best_epoch >= options.patience:
            break
    network.load_state_dict(state)
    return epoch, best_epoch
