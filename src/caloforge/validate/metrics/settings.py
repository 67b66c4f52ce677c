"""What a comparison is asked to do: seeds, sizes, classifier, device."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from caloforge.errors import InputError

__all__ = ["ClassifierPreset", "Settings"]

ClassifierPreset = Literal["fast", "calochallenge"]


class Settings(BaseModel):
    """Options of every metric. One seed fixes all random choices.

    Attributes:
        seed: Seed of subsets, splits, bootstrap and classifiers.
        n_max: Most showers a side for the metrics that hold cells in memory or compare all pairs; the
            number used is reported with each value.
        max_bytes: Most bytes of cells a side that such a metric holds; lowers ``n_max`` for large detectors.
        n_bootstrap: Bootstrap samples behind an uncertainty.
        n_halves: How often the reference is split into halves for a floor.
        threshold: Cell energy below which the logarithms of cells are cut (MeV).
        device: Where torch computes: "auto" takes a GPU when there is one.
        classifier: "fast" (256-wide, early stopping) or "calochallenge" (2048-wide, 50 epochs).
        classifier_seeds: Networks trained for each AUC, each with a split of its own.
        floor_seeds: Networks trained for the floor of each AUC.
        cnn: Whether the 3-D convolutional classifier runs as well.
        cnn_epochs: Most epochs of the 3-D convolutional classifier.
        n_quantiles: Bins of the quantile divergence; by default the largest power of two not above a
            tenth of the smaller sample, and at most 256.
        neighbours: k of precision, recall, density and coverage.
        ssim_pairs: Pairs of showers behind each mean structural similarity.
        reconstruction: Whether samples are compared after reconstruction as well; by default for grids of
            known MIP energy.
        folds: Folds of the two-sample tests: each shower is scored by a classifier trained on the others.
        quick: Whether the two-sample tests take gradient boosting alone, in two folds, and detectability is left out.
        covariance_cells: Most cells in the covariance distance (the most energetic ones).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, ge=0)
    n_max: int = Field(default=10_000, ge=2)
    max_bytes: int = Field(default=1 << 29, ge=1 << 16)
    n_bootstrap: int = Field(default=30, ge=2)
    n_halves: int = Field(default=5, ge=1)
    threshold: float = Field(default=0.1, gt=0.0)
    device: str = "auto"
    classifier: ClassifierPreset = "fast"
    classifier_seeds: int = Field(default=3, ge=1)
    floor_seeds: int = Field(default=2, ge=1)
    cnn: bool = False
    cnn_epochs: int = Field(default=15, ge=1)
    n_quantiles: int | None = Field(default=None, ge=2)
    neighbours: int = Field(default=5, ge=1)
    ssim_pairs: int = Field(default=1000, ge=2)
    reconstruction: bool | None = None
    folds: int = Field(default=3, ge=2)
    quick: bool = False
    covariance_cells: int = Field(default=500, ge=2)

    def torch_device(self) -> str:
        """Return the name of the torch device to compute on.

        Raises:
            InputError: When the device is not known, or there is no such GPU.
        """
        if self.device == "cpu":
            return self.device
        name, _, number = self.device.partition(":")
        if name not in ("auto", "cuda") or (number and not (name == "cuda" and number.isdecimal())):
            msg = f"device '{self.device}' is not known; expected auto, cpu, cuda or cuda:1"
            raise InputError(msg)
        import torch

        if name == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        if torch.cuda.device_count() <= int(number or 0):
            msg = (
                f"device '{self.device}' was asked for, but torch finds {torch.cuda.device_count()} GPUs here"
            )
            raise InputError(msg)
        return self.device

    def showers_a_side(self, n_cells: int) -> int:
        """Return how many showers a side may be held in memory as cells.

        Arguments:
            n_cells: Cells of one shower (float32).
        """
        return max(2, min(self.n_max, self.max_bytes // (4 * n_cells)))
