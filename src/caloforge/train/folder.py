"""The run folder: what a training leaves behind, and how a model is built from it again.

The run folder: what a training leaves behind, and how a model is built from it again.

``config.toml`` the resolved settings; ``run.json`` detector, conditions, data and its hash, seed, versions, times and
result; ``identities.npz`` the identities of the showers that trained and selected the model;
``weights.safetensors`` the weights that generate (``weights-1.safetensors``... further members of an ensemble);
``metrics.csv`` the log; ``state.pt`` what a stopped run needs to go on, removed at the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caloforge.errors import FileFormatError
from caloforge.files import read_json, write_json
from caloforge.geometry import Detector, detector_from_definition, get_detector
from caloforge.models import MODELS
from caloforge.models.base import ShowerModel
from caloforge.train.checkpoint import load_weights
from caloforge.train.seen import RUN_FILE, SeenByTraining
from caloforge.train.settings import read_settings

__all__ = ["RunFolder", "unfinished_text"]


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

    @property
    def identities(self) -> Path:
        """Identities of the showers that trained and selected the model."""
        return self.path / RUN_FILE

    def seen(self) -> SeenByTraining:
        """Return what the training has seen.

        Raises:
            FileFormatError: When the folder does not hold a run, or its identities are broken.
        """
        return SeenByTraining.read(self.path, self.read().get("seen"))

    def unfinished(self) -> str:
        """Return which stages were not trained, as "unfinished: stage post not trained"; empty when all were.

        Raises:
            FileFormatError: When the folder does not hold a run.
        """
        content = self.read()
        if content.get("status") != "unfinished":
            return ""
        return unfinished_text(content.get("not_trained", ()))

    def weights(self, member: int = 0) -> Path:
        """Weights of a member; there is one unless the run is an ensemble."""
        return self.path / ("weights.safetensors" if member == 0 else f"weights-{member}.safetensors")

    def clear(self) -> None:
        """Remove the files of an earlier run, and nothing else."""
        own = (self.config, self.info, self.log, self.state, self.identities)
        for path in (*own, *self.path.glob("weights*.safetensors")):
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

        Of a run that is :meth:`unfinished` too: some of its weights are then those that a training begins with.

        Raises:
            FileFormatError: When the run has not ended or its files are broken.
        """
        content = self.read()
        if content.get("status") not in ("finished", "unfinished"):
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


def unfinished_text(stages: Iterable[str]) -> str:
    """Return what a run is of which some stages were not trained."""
    names = list(stages)
    return f"unfinished: stage{'s' if len(names) > 1 else ''} {', '.join(names)} not trained"
