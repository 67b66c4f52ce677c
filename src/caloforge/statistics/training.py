"""Training of a two-sample classifier: split, standardise, train, choose, score.

Reference showers carry the label 0, generated ones 1. Each network has a split of its own, drawn from its
seed: 60 % to train, 20 % to choose the epoch and to calibrate, 20 % held out. Batches are gathered from the two samples,
which are held once: beside them a training holds a copy of its own part while the network is built.

References:
    C. Krause, D. Shih, CaloFlow, arXiv:2106.05285; O. Amram et al., CaloChallenge 2022, arXiv:2410.21611.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import TooFewShowersError
from caloforge.random import child_seed, generator
from caloforge.statistics.networks import threads_for
from caloforge.statistics.scoring import auc_with_error, calibrate, divergence_bits

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["FEWEST", "PRESETS", "Scores", "TrainingOptions", "fit_network", "train_once"]

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
        standardise: Shift and scale the inputs by their mean and spread over the training part.
    """

    width: int
    learning_rate: float
    batch: int
    epochs: int
    patience: int | None
    by_accuracy: bool
    weight_decay: float = 0.0
    dropout: float = 0.0
    standardise: bool = True


PRESETS: dict[str, TrainingOptions] = {
    "fast": TrainingOptions(256, 1e-3, 256, 25, 6, by_accuracy=False, weight_decay=1e-2, dropout=0.4),
    "calochallenge": TrainingOptions(2048, 2e-4, 1000, 50, None, by_accuracy=True, standardise=False),
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
    sides = [
        torch.from_numpy(np.ascontiguousarray(x)).to(device, torch.float32) for x in (reference, generated)
    ]
    parts = [_Part(sides[0], sides[1], a, b) for a, b in zip(_split(n, rng), _split(n, rng), strict=True)]
    with torch.random.fork_rng(devices=[] if device == "cpu" else None):
        torch.manual_seed(child_seed(seed, "classifier weights"))
        network = build(parts[0].all()).to(device)
        with threads_for(_operations(network, len(parts[0]), options)):
            epochs, best = _fit(network, parts, options, child_seed(seed, "classifier batches"))
            validation, held_out = _logits(network, parts[1]), _logits(network, parts[2])
    slope, offset = calibrate(validation, parts[1].labels)
    of_reference, of_generated = np.split(slope * held_out + offset, [parts[2].n_reference])
    auc, auc_error = auc_with_error(of_reference, of_generated)
    jsd, jsd_error = divergence_bits(of_reference, of_generated)
    return Scores(auc, auc_error, jsd, jsd_error, epochs, best, len(of_reference))


def fit_network(
    x: NDArray[np.float32],
    labels: NDArray[np.float64],
    x_validation: NDArray[np.float32],
    labels_validation: NDArray[np.float64],
    seed: int,
    build: Callable[[torch.Tensor], nn.Module],
    options: TrainingOptions,
    device: str = "cpu",
) -> Callable[[NDArray[np.float32]], NDArray[np.float64]]:
    """Train a network on given parts and return the function that scores rows (N, d) by their logits (N,).

    Arguments:
        x: Training inputs (N, d).
        labels: 0 or 1 (N,).
        x_validation: Inputs (M, d) that choose the epoch.
        labels_validation: Their labels (M,).
        seed: Seed of initial weights and batches.
        build: Makes the network from the training inputs; maps (B, d) to logits (B,).
        options: How to train.
        device: Where to train and score.
    """
    import torch

    parts = [_Part.of_labels(*some, device) for some in ((x, labels), (x_validation, labels_validation))]
    with torch.random.fork_rng(devices=[] if device == "cpu" else None):
        torch.manual_seed(child_seed(seed, "classifier weights"))
        network = build(parts[0].all()).to(device)
        with threads_for(_operations(network, len(parts[0]), options)):
            _fit(network, parts, options, child_seed(seed, "classifier batches"))

    def score(rows: NDArray[np.float32]) -> NDArray[np.float64]:
        with threads_for(_operations(network, len(rows), options)):
            return _logits(network, _Part.of_labels(rows, np.zeros(len(rows)), device))

    return score


class _Part:
    """Some rows of both samples, gathered a batch at a time so that the samples are held once.

    Arguments:
        reference: Inputs (N, d), label 0, on the device of the training.
        generated: Inputs (N, d), label 1.
        first: Rows (n,) of the reference.
        second: Rows (n,) of the generated sample.
    """

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
    def of_labels(cls, x: NDArray[np.float32], labels: NDArray[np.float64], device: str) -> _Part:
        """Return all rows of inputs (N, d) with labels (N,)."""
        import torch

        sides = [torch.from_numpy(x[labels == label]).to(device, torch.float32) for label in (0.0, 1.0)]
        return cls(sides[0], sides[1], *(np.arange(len(side)) for side in sides))

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, chosen: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the inputs (B, d) and labels (B,) of chosen places (B,), those of the reference first."""
        import torch

        place = self._sides[0].device
        of_reference = chosen < self.n_reference
        rows = (
            self._rows[0][chosen[of_reference]],
            self._rows[1][chosen[~of_reference] - self.n_reference],
        )
        x = self._sides[0].new_empty(len(chosen), *self._sides[0].shape[1:])
        half = len(rows[0])
        for side, some, part in zip(self._sides, rows, (x[:half], x[half:]), strict=True):
            torch.index_select(side, 0, torch.from_numpy(some).to(place), out=part)
        y = torch.cat([torch.full((len(some),), label, device=place) for label, some in enumerate(rows)])
        return x, y.to(x.dtype)

    def all(self) -> torch.Tensor:
        """Return all inputs (2 n, d), gathered into one matrix without copies of its halves."""
        import torch

        first = self._sides[0]
        out = first.new_empty(len(self), *first.shape[1:])
        start = 0
        for side, rows in zip(self._sides, self._rows, strict=True):
            index = torch.from_numpy(rows).to(side.device)
            torch.index_select(side, 0, index, out=out[start : start + len(rows)])
            start += len(rows)
        return out


def _operations(network: nn.Module, n: int, options: TrainingOptions) -> float:
    """Return the operations of a step: six for each weight and shower; without end for convolutions."""
    if any(parameter.ndim > 2 for parameter in network.parameters()):
        return float("inf")
    return 6.0 * sum(p.numel() for p in network.parameters()) * _batch(n, options)


def _batch(n: int, options: TrainingOptions) -> int:
    """Return the showers of a step when ``n`` are trained on."""
    return min(options.batch, max(_SMALLEST_BATCH, n // _STEPS))


def _logits(network: nn.Module, part: _Part, batch: int = 1024) -> NDArray[np.float64]:
    import torch

    network.eval()
    with torch.no_grad():
        starts = range(0, len(part), batch)
        out = torch.cat(
            [network(part.batch(np.arange(start, min(start + batch, len(part))))[0]) for start in starts]
        )
    result: NDArray[np.float64] = out.double().cpu().numpy()
    return result


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
        quality = _quality(_logits(network, parts[1]), parts[1].labels, options.by_accuracy)
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
