"""Base of the ATLAS models for a list of cells: encoded conditions, symmetries of the beam and calibration."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from caloforge.errors import ConfigError
from caloforge.geometry import Detector
from caloforge.models.calibration.base import CalibratedModel, Calibration
from caloforge.models.calibration.showers import CellMaps, LayerMaps
from caloforge.models.calibration.spectrum import SpectrumMap
from caloforge.models.nn.conditions import BeamSymmetry, ConditionEncoder
from caloforge.models.stage import Batch
from caloforge.settings import ModelConfig
from caloforge.showers import Showers

__all__ = ["AtlasConfig", "AtlasModel"]


class AtlasConfig(ModelConfig):
    """Settings of both models."""

    symmetries: bool = True  # mirror training showers as the beam allows
    calibrate: bool = True  # post-training calibration of layer energies and cells by quantile mapping


class AtlasModel(CalibratedModel):
    """Model of cells that scale with the incident energy."""

    config: AtlasConfig

    def __init__(self, detector: Detector, config: AtlasConfig) -> None:
        super().__init__(detector, config)
        if "incident_energy" not in self.columns:
            msg = "key 'conditions': expected 'incident_energy' among them; cells scale with it"
            raise ConfigError(msg)
        self.condition_encoder = ConditionEncoder(detector, self.columns)
        self.symmetry = BeamSymmetry(detector, self.columns)
        self.calibration = None
        if config.calibrate:
            cells = CellMaps(detector, self.columns, self.symmetry)
            self.calibration = Calibration(LayerMaps(detector), cells, last=SpectrumMap(detector))

    def fit_transforms(self, showers: Showers) -> None:
        """Set the scales of the conditions and the symmetries."""
        super().fit_transforms(showers)
        self.symmetry.allow(showers.incident_theta)
        self.condition_encoder.fit(self.condition_matrix(showers))

    def energy(self, conditions: Tensor) -> Tensor:
        """Return the incident energies (B,), MeV, of conditions (B, C)."""
        return self.condition(conditions, "incident_energy")[:, 0]

    @abstractmethod
    def make(self, noise: Tensor, conditions: Tensor, dense: bool = False) -> Tensor:
        """Return the network's cells (B, n_cells), MeV, with small energies in those that would be empty where ``dense``."""

    def make_for_calibration(self, noise: Tensor, conditions: Tensor) -> Tensor:
        """Return dense cells (B, n_cells), MeV."""
        return self.make(noise, conditions, dense=True)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with a random symmetry applied to each shower."""
        return self.symmetry.augment(batch, generator) if self.config.symmetries else batch
