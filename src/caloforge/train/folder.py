"""The run folder: the files that a training writes, the showers that it has seen, and the loading of its model.

``config.toml`` the resolved settings; ``run.json`` detector, conditions, data and its hash, seed, versions, times and result, and of a run that has ended sizes and SHA-256 of settings,
weights and identities, which are checked whenever these are read; ``weights.safetensors`` the weights that generate (``weights-1.safetensors``... further members of an ensemble);
``metrics.csv`` the log; ``state.pt`` what a stopped run needs to go on bit for bit, removed at the end: it is in torch's format and is read with ``weights_only=True``, so that it
cannot run code; ``report/`` the measurement that ends a training. Every file is written whole or not at all.

``identities.npz`` has three sorted sets of identities of showers (uint64): ``training``, on which the model is calibrated
too, ``selection`` (held-out showers, by which epochs are chosen) and ``inherited`` (what the weights of ``train.initial``
had seen before). A shipped model has ``MODEL.identities.npy`` with all of them.
"""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, cast
from zipfile import ZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from caloforge import __version__
from caloforge.errors import FileFormatError, IncompatibleError
from caloforge.files import atomic_path, is_empty, sha256_file, source_commit
from caloforge.geometry import Detector, detector_from_definition, get_detector
from caloforge.models import MODELS
from caloforge.models.base import ShowerModel
from caloforge.showers import Showers
from caloforge.showers.hdf5 import SEEN_INCOMPLETE, SEEN_SEEDS
from caloforge.showers.identity import NO_IDENTITIES, seen_union
from caloforge.showers.writing import GuardedFile
from caloforge.text_files import check_regular
from caloforge.train import stored
from caloforge.train.data import Split, TrainingFiles, read_files, split
from caloforge.train.files import Files
from caloforge.train.settings import DataConfig, Resolved, read_settings, resolve
from caloforge.train.stored import MEMBER, RUN_FILE, check_digest, described, load_weights, save_weights

__all__ = [
    "RunFolder",
    "SeenByTraining",
    "held_out_showers",
    "inherited_from",
    "load_state",
    "load_weights",
    "random_state",
    "read_identities",
    "restore_random",
    "run_facts",
    "save_state",
    "save_weights",
    "shipped_identities",
    "write_identities",
]

_NAMES = ("training", "selection", "inherited")
IDENTITIES, FORMAT = "identities.npz", 1
_MOST_PACKED = 100  # times that identities may be larger unpacked
_SAME_ANGLE = 1e-3  # degrees; float32 directions are rounded by less


def run_facts(
    settings: Resolved, files: TrainingFiles, seed: int, parts: Split, device: torch.device, devices: int
) -> dict[str, Any]:
    """Return the content of ``run.json`` when the training starts."""
    processor = platform.processor() or platform.machine()
    versions = {name: version(name) for name in ("torch", "numpy", "h5py")}
    return {
        "status": "running",
        "model": settings.model_name,
        "detector": files.detector.name,
        "detector_definition": files.detector.definition,
        **({"detectors": [one.name for one in files.detectors]} if files.detectors else {}),
        "particle": files.header.particle,
        "incident_theta": _angles(files.header),
        "seed": seed,
        "data": files.facts,
        "storage": files.storage,
        "train_showers": len(parts.train),
        "held_out_showers": len(parts.held_out),
        "versions": {"caloforge": __version__, "python": platform.python_version(), **versions},
        "commit": source_commit(),
        "command": " ".join(["caloforge", *sys.argv[1:]]) if "caloforge" in sys.argv[0] else "",
        "device": str(device) if devices == 1 else device.type,
        "devices": devices,
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else processor,
        "threads": torch.get_num_threads(),
    }


def _angles(showers: Showers) -> list[float]:
    """Return the lowest and highest angle, degrees; one angle where they differ by rounding alone."""
    low, high = float(showers.incident_theta.min()), float(showers.incident_theta.max())
    return [low, high] if high - low > _SAME_ANGLE else [round((low + high) / 2, 3)] * 2


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write the state of a training."""
    with atomic_path(path, force=True) as part, GuardedFile(part) as file:
        try:
            torch.save({"format": FORMAT, **state}, cast(IO[bytes], file))
        finally:
            if file.error is not None:  # torch would name neither the file nor the reason
                raise file.error


def load_state(path: Path, device: torch.device) -> dict[str, Any]:
    """Read the state of a training.

    Raises:
        FileFormatError: When it is broken or of another format.
    """
    check_regular(path)
    try:
        with ZipFile(path) as archive:  # torch does not look at the checksums
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"{damaged} is damaged")
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"it holds a {type(state).__name__}")
    except Exception as error:  # torch raises many kinds for a broken file
        raise FileFormatError(path, "", "is not the state of a training; start again with --force") from error
    if state.get("format") != FORMAT:
        raise FileFormatError(path, "format", f"is {state.get('format')}; expected {FORMAT}")
    return state


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the states of torch's global generators, which dropout and initialisation use: of the CPU, and of a GPU."""
    on_gpu = device.type == "cuda"
    return {"torch": torch.get_rng_state(), "cuda": [torch.cuda.get_rng_state(device)] if on_gpu else []}


def restore_random(state: Mapping[str, Any], device: torch.device) -> None:
    """Set torch's global generators."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and device.type == "cuda":
        stored = state["cuda"]  # of all GPUs in checkpoints of before
        torch.cuda.set_rng_state(stored[(device.index or 0) % len(stored)].cpu(), device)


@dataclass(frozen=True)
class SeenByTraining:
    """What a training has seen."""

    # identities of the training showers, sorted; the model is calibrated on them too
    training: NDArray[np.uint64] = field(default_factory=lambda: NO_IDENTITIES)
    # identities of the held-out showers, by which epochs are chosen
    selection: NDArray[np.uint64] = field(default_factory=lambda: NO_IDENTITIES)
    # identities that the weights had seen from which the training began
    inherited: NDArray[np.uint64] = field(default_factory=lambda: NO_IDENTITIES)
    seeds: tuple[int, ...] = ()  # simulation seeds that those weights had seen, whose files are lost
    missing: str = ""  # why more may have been seen than is known; empty: all is known

    @property
    def all(self) -> NDArray[np.uint64]:
        """Every identity that was seen, sorted."""
        return seen_union([self.training, self.selection, self.inherited])

    def facts(self) -> dict[str, Any]:
        """Return what ``run.json`` says of it."""
        counts = {name: len(getattr(self, name)) for name in _NAMES}
        return {**counts, "seeds": list(self.seeds), "complete": not self.missing} | (
            {"missing": self.missing} if self.missing else {}
        )

    def attributes(self) -> dict[str, Any]:
        """Return the attributes that generated showers get beside the identities."""
        return ({SEEN_SEEDS: list(self.seeds)} if self.seeds else {}) | (
            {SEEN_INCOMPLETE: self.missing} if self.missing else {}
        )

    def write(self, folder: Path) -> None:
        """Write the identities into a run folder."""
        with atomic_path(folder / IDENTITIES, force=True) as part, part.open("wb") as handle:
            np.savez_compressed(handle, **{name: getattr(self, name) for name in _NAMES})

    @classmethod
    def read(cls, folder: Path, facts: dict[str, Any] | None = None) -> SeenByTraining:
        """Read a run folder, whose ``run.json`` says ``facts`` under ``seen``.

        Raises:
            FileFormatError: When the file of identities is broken.
        """
        facts = facts or {}
        path = folder / IDENTITIES
        seeds = tuple(int(seed) for seed in facts.get("seeds", ()))
        if not path.exists():
            missing = (
                f"{path.name} is missing in the run folder '{folder.name}', which an older version wrote"
            )
            return cls(seeds=seeds, missing=missing)
        check_digest(path)
        with _identities(path), np.load(path, allow_pickle=False) as stored:
            if (
                size := sum(one.file_size for one in stored.zip.infolist())
            ) > _MOST_PACKED * path.stat().st_size:
                raise ValueError(f"it unpacks to {size:,} bytes")
            sets = {name: seen_union([stored[name]]) for name in _NAMES}
        return cls(**sets, seeds=seeds, missing=str(facts.get("missing", "")))


def inherited_from(weights: Path) -> SeenByTraining:
    """Return what the weights of a file have seen, as ``inherited``: a run's weights or a shipped model's."""
    if (weights.parent / IDENTITIES).exists():
        before = SeenByTraining.read(weights.parent, _seen_facts(weights.parent / RUN_FILE))
        return SeenByTraining(inherited=before.all, seeds=before.seeds, missing=before.missing)
    shipped = shipped_identities(weights)
    if shipped.is_file():
        seeds = _seen_facts(shipped.with_name(f"{shipped.name.removesuffix('.identities.npy')}.json"))
        return SeenByTraining(
            inherited=read_identities(shipped), seeds=tuple(int(seed) for seed in seeds.get("seeds", ()))
        )
    return SeenByTraining(missing=f"no identities lie beside the weights of train.initial, {weights.name}")


def shipped_identities(weights: Path) -> Path:
    """Return where the identities lie that belong to a shipped model's weights or card."""
    return weights.with_name(f"{MEMBER.sub('', weights.stem)}.identities.npy")


def read_identities(path: Path) -> NDArray[np.uint64]:
    """Read a set of identities.

    Raises:
        FileFormatError: When the file is missing or broken.
    """
    check_regular(path)
    with _identities(path):
        return seen_union([np.array(np.load(path, mmap_mode="r", allow_pickle=False))])


@contextmanager
def _identities(path: Path) -> Iterator[None]:
    """Turn what NumPy raises for a damaged file, which may be of any kind, into one line."""
    try:
        yield
    except (Exception, MemoryError) as error:
        raise FileFormatError(path, "", f"is not a file of identities of showers: {error}") from error


def write_identities(path: Path, sets: Iterable[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """Write the union of sets of identities, and return it."""
    union = seen_union(sets)
    with atomic_path(path, force=True) as part, part.open("wb") as handle:
        np.save(handle, union, allow_pickle=False)
    path.chmod(0o644)
    return union


def _seen_facts(path: Path) -> dict[str, Any]:
    content = described(path) if path.is_file() else {}
    facts: dict[str, Any] = content.get("seen") or {}
    return facts


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = stored.RunPath(path)
        self.config = path / "config.toml"  # resolved settings
        self.info = path / RUN_FILE  # everything else about the run
        self.log = path / "metrics.csv"  # losses and figures by epoch
        self.state = path / "state.pt"  # of an unfinished training
        self.identities = path / IDENTITIES  # of the showers that trained and selected the model
        self.report = path / "report"  # folder of the measurement that ends a training

    def __repr__(self) -> str:
        return f"RunFolder('{self.path}')"

    def _repr_html_(self) -> str | None:
        return self.path._repr_html_()

    def seen(self) -> SeenByTraining:
        """Return which showers the training has seen.

        Raises:
            FileFormatError: When the folder is not a run, or its identities are broken.
        """
        return SeenByTraining.read(self.path, self.read().get("seen"))

    def unfinished(self) -> str:
        """Return which stages were not trained, as "unfinished: stage post not trained"; empty when all were.

        Raises:
            FileFormatError: When the folder is not a run.
        """
        content = self.read()
        stages = content.get("not_trained", ())
        return stored.unfinished_text(stages) if content.get("status") == "unfinished" else ""

    def weights(self, member: int = 0) -> Path:
        """Weights of a member; there is one unless the run is an ensemble."""
        return self.path / ("weights.safetensors" if member == 0 else f"weights-{member}.safetensors")

    def is_new(self) -> bool:
        """Whether there is nothing in the folder, or only what a training wrote that was killed before it began."""
        return self.path.is_dir() and is_empty(self.path, (self.config.name, self.identities.name))

    def clear(self) -> None:
        """Remove the files of an earlier run, and nothing else; first that which makes it a run."""
        own = (self.info, self.config, self.log, self.state, self.identities)
        for path in (*own, *self.path.glob("weights*.safetensors")):
            path.unlink(missing_ok=True)
        if (self.report / "metrics.json").is_file():
            shutil.rmtree(self.report)

    def tidy(self) -> None:
        """Remove what a finished run needs no more: the state, and the weights of trainings that were not chosen."""
        members = int(self.read().get("members", 1))
        for path in self.path.glob("weights-*.safetensors"):
            number = path.stem.removeprefix("weights-")
            if number.isdecimal() and int(number) >= members:
                path.unlink(missing_ok=True)
        self.state.unlink(missing_ok=True)

    def read(self) -> dict[str, Any]:
        """Return what ``run.json`` says.

        Raises:
            FileFormatError: When the folder is not a run.
        """
        if not self.info.exists():
            message = "is missing; expected a run folder of caloforge train"
            raise FileFormatError(self.path, "run.json", message)
        return described(self.info)

    def digests(self, members: int) -> dict[str, dict[str, Any]]:
        """Return SHA-256 and sizes of settings, identities and weights by the names of their files, as ``run.json`` has them."""
        files = [self.config, self.identities, *(self.weights(member) for member in range(members))]
        return {
            "sha256": {path.name: sha256_file(path) for path in files},
            "bytes": {path.name: path.stat().st_size for path in files},
        }

    def detector(self) -> Detector:
        """Return the detector of the run, a user's own from its stored definition."""
        content = self.read()
        definition = content.get("detector_definition", "")
        return detector_from_definition(definition) if definition else get_detector(content["detector"])

    def models(self, detector: Detector | None = None) -> list[ShowerModel]:
        """Return the trained model, or the members of the ensemble, on the CPU in evaluation mode.

        With ``detector`` they are made that detector's, of a run on several detectors. Of a run that is :meth:`unfinished` too: some of its weights are then those that a training begins with.

        Raises:
            FileFormatError: When the run has not ended or its files are broken.
            IncompatibleError: When its weights serve no other detector, or not that one.
        """
        content = self.read()
        if content.get("status") not in ("finished", "unfinished"):
            raise FileFormatError(
                self.path, "run.json", "says that the training is not finished; continue it with --resume"
            )
        own = self.detector()
        if detector is not None and detector != own and "detectors" not in content:
            raise IncompatibleError(
                f"{self.path}: is a model of the detector '{own.name}' alone; for '{detector.name}' give one that was trained on several "
                "detectors, with detector_conditions = true"
            )
        kind = MODELS[content["model"]]
        check_digest(self.config)
        config = kind.resolve(read_settings(self.config).get("model", {}), str(self.config))
        members = []
        for member in range(int(content.get("members", 1))):
            model = kind(own if detector is None else detector, config)
            model.load_weights(load_weights(self.weights(member)))
            members.append(model.eval())
        return members


def held_out_showers(run: str | Path, data: Files) -> Showers:
    """Return the showers of its data that a run held out, in random order; of several detectors those of the first.

    Raises:
        FileFormatError: When the run was written before showers had identities: its split is not known any more.
    """
    folder = RunFolder(Path(run))
    if not folder.identities.is_file():
        raise FileFormatError(
            folder.identities, "", "is missing; the split of so old a run is not known, train again"
        )
    content = read_settings(folder.config)
    settings = resolve(content["name"], content)
    several = "detectors" in folder.read()
    default = None if several else folder.detector()
    files = read_files(data, DataConfig().bytes, detector=default, several=several)
    rows = split(files.identities, settings.train).held_out
    return files.showers(rows if files.groups is None else rows[files.groups[rows] == 0])
