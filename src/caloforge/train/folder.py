"""The run folder: what a training leaves behind, and how a model is built from it again.

``config.toml`` the resolved settings; ``run.json`` detector, conditions, data and its hash, seed, versions, times and
result; ``weights.safetensors`` the weights that generate (``weights-1.safetensors``... further members of an ensemble);
``metrics.csv`` the log; ``state.pt`` what a stopped run needs to go on, removed at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caloforge.errors import FileFormatError
from caloforge.files import read_json, write_json
from caloforge.geometry import Detector, detector_from_definition, get_detector
from caloforge.models import MODELS
from caloforge.models.base import ShowerModel
from caloforge.train.checkpoint import load_weights
from caloforge.train.settings import read_settings

__all__ = ["RunFolder"]


@dataclass(frozen=True)
class RunFolder:
    """Names of the files of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """Resolved settings."""
        return self.path / "config.toml"

    @property
    def info(self) -> Path:
        """Everything else about the run."""
        return self.path / "run.json"

    @property
    def log(self) -> Path:
        """Losses and figures by epoch."""
        return self.path / "metrics.csv"

    @property
    def state(self) -> Path:
        """State of an unfinished training."""
        return self.path / "state.pt"

    def weights(self, member: int = 0) -> Path:
        """Weights of a member; there is one unless the run is an ensemble."""
        return self.path / ("weights.safetensors" if member == 0 else f"weights-{member}.safetensors")

    def clear(self) -> None:
        """Remove the files of an earlier run, and nothing else."""
        for path in (self.config, self.info, self.log, self.state, *self.path.glob("weights*.safetensors")):
            path.unlink(missing_ok=True)

    def read(self) -> dict[str, Any]:
        """Return what ``run.json`` says.

        Raises:
            FileFormatError: When the folder does not hold a run.
        """
        if not self.info.is_file():
            raise FileFormatError(
                self.path, "run.json", "is missing; expected a run folder of caloforge train"
            )
        try:
            content: dict[str, Any] = read_json(self.info)
        except ValueError as error:
            raise FileFormatError(self.info, "", f"is not JSON: {error}") from error
        return content

    def write(self, content: dict[str, Any]) -> None:
        """Write ``run.json``."""
        write_json(self.info, content)

    def detector(self) -> Detector:
        """Return the detector of the run, a user's own from its stored definition."""
        content = self.read()
        definition = content.get("detector_definition", "")
        return detector_from_definition(definition) if definition else get_detector(content["detector"])

    def models(self) -> list[ShowerModel]:
        """Return the trained model, or the members of the ensemble, on the CPU in evaluation mode.

        Raises:
            FileFormatError: When the run is not finished or its files are broken.
        """
        content = self.read()
        if content.get("status") != "finished":
            raise FileFormatError(
                self.path, "run.json", "says that the training is not finished; go on with --resume"
            )
        kind = MODELS[content["model"]]
        config = kind.resolve(read_settings(self.config).get("model", {}), str(self.config))
        members = []
        for member in range(int(content.get("members", 1))):
            model = kind(self.detector(), config)
            model.load_weights(load_weights(self.weights(member)))
            members.append(model.eval())
        return members
