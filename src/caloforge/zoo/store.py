"""Shipped models by name, and ``load``.

Each has a card (JSON) and weights (float16 safetensors), named ``DATASET/MODEL``.
``zoo/DATASET/MODEL.json`` says of what data, by which command and on what hardware the model was trained, and what
was measured on showers that it has not seen; ``zoo/DATASET/MODEL.safetensors`` holds the weights, further members of an
ensemble ``MODEL-1.safetensors`` and so on; ``MODEL.identities.npy`` the identities of the showers that it has seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from caloforge.cluster import Cluster
from caloforge.errors import FileFormatError, IncompatibleError, UnknownNameError
from caloforge.generate import Generator
from caloforge.generate.conditions import Request
from caloforge.geometry import Detector, get_detector
from caloforge.models import MODELS
from caloforge.models.base import ShowerModel
from caloforge.progress import progress
from caloforge.settings import torch_device
from caloforge.showers import ShowerWriter, SparseShowers, open_showers
from caloforge.showers.hdf5 import MODEL_STATUS
from caloforge.showers.ranges import range_facts
from caloforge.train.folder import RunFolder, SeenByTraining, load_weights, read_identities
from caloforge.train.stored import check_digest, described
from caloforge.units import AngleSpec

__all__ = ["Card", "find_card", "generate_on_cluster", "load", "shipped_models", "weights_of"]


ZOO = Path(__file__).parents[1] / "zoo"


@dataclass(frozen=True)
class Card:
    """One shipped model."""

    name: str  # ``DATASET/MODEL``
    path: Path  # the card's file
    # what it says: ``model``, ``detector``, ``config``, ``members``, ``particle``, ``best`` and more
    content: dict[str, Any]

    def generator(
        self,
        device: str = "cpu",
        options: dict[str, Any] | None = None,
        precision: str = "float32",
        compiled: bool = False,
    ) -> Generator:
        """Return the model as a generator on ``cpu`` or ``cuda``, with the showers that it has seen; the rest as for :func:`load`."""
        where, seen = torch.device(device), self.seen()
        members = [member.choose(options).to(where) for member in self.models()]
        particle = str(self.content.get("particle", ""))
        facts = seen.attributes()
        theta = _angles(self.content)
        generator = Generator(
            members, self.name, particle, where, seen.all, facts, precision, compiled, theta
        )
        generator.card = self.content
        return generator

    def seen(self) -> SeenByTraining:
        """Return the identities of the showers, and the simulation seeds, that trained or selected the model.

        Raises:
            FileFormatError: When the card names a file of identities that is missing, broken, or not the one.
        """
        facts = self.content.get("seen")
        if facts is None:
            return SeenByTraining(missing="its card names no identities")
        path = self.path.with_name(str(facts["file"]))
        if not path.exists():
            raise FileFormatError(path, "", "is missing; its card names it")
        check_digest(path, self.path)
        found = read_identities(path)
        if len(found) != facts["showers"]:
            raise FileFormatError(path, "", f"has {len(found)} identities; its card says {facts['showers']}")
        seeds = tuple(int(seed) for seed in facts.get("seeds", ()))
        return SeenByTraining(training=found, seeds=seeds, missing=str(facts.get("missing", "")))

    def models(self) -> list[ShowerModel]:
        """Return the model, or the members of the ensemble, on the CPU in evaluation mode."""
        kind = MODELS[self.content["model"]]
        config = kind.resolve(self.content.get("config", {}), str(self.path))
        members = []
        for member in range(int(self.content.get("members", 1))):
            model = kind(get_detector(self.content["detector"]), config)
            suffix = "" if member == 0 else f"-{member}"
            half = load_weights(self.path.with_name(f"{self.path.stem}{suffix}.safetensors"))
            weights = {key: w.float() if w.is_floating_point() else w for key, w in half.items()}
            model.load_weights(weights, shipped=True)
            members.append(model.eval())
        return members


def _angles(content: dict[str, Any]) -> AngleSpec | None:
    """Return the angles of the training's showers that a run or a card names; None for those of the beam."""
    return AngleSpec(*content["incident_theta"]) if "incident_theta" in content else None


def shipped_models(folder: Path = ZOO) -> dict[str, Card]:
    """Return all cards by name."""
    cards = {}
    for path in sorted(folder.glob("*/*.json")):
        name = f"{path.parent.name}/{path.stem}"
        cards[name] = Card(name, path, described(path))
    return cards


def find_card(name: str, folder: Path = ZOO) -> Card:
    """Return the card of ``DATASET/MODEL``, or of the best model of ``DATASET``.

    Raises:
        UnknownNameError: When no shipped model has that name.
    """
    cards = shipped_models(folder)
    if name in cards:
        return cards[name]
    best = [card for card in cards.values() if card.path.parent.name == name and card.content.get("best")]
    if best:
        return best[0]
    known = list(cards) or ["none is shipped yet; give a run folder of caloforge train"]
    raise UnknownNameError("shipped model or run folder", name, known)


def weights_of(source: str | Path) -> Path:
    """Return the weights file of a run folder (of an ensemble the first member's), of a shipped model, or the file itself.

    Raises:
        UnknownNameError: When it is none of these.
    """
    path = Path(source)
    if path.is_dir():
        return RunFolder(path).weights()
    return path if path.suffix == ".safetensors" else find_card(str(source)).path.with_suffix(".safetensors")


def load(
    source: str | Path,
    device: str = "auto",
    options: dict[str, Any] | None = None,
    precision: str = "float32",
    compiled: bool = False,
    detector: str | Path | Detector | None = None,
) -> Generator:
    """Load a generator.

    Arguments:
        source: A run folder, or a shipped model: ``DATASET/MODEL``, or ``DATASET`` for its best one.
        device: ``auto``, ``cpu`` or ``cuda``.
        options: What the model lets choose at generation, such as the number of steps.
        precision: ``float32``, ``tf32`` or ``bf16``: of the networks that are safe in it; before the first showers some are compared
            with those of float32.
        compiled: Compile the networks, on a GPU.
        detector: Detector to generate showers of, with a run on several detectors (``detector_conditions``): any of their grid.

    Returns:
        The generator, with the identities of the showers that trained and selected the model. Of an unfinished run, its
        attribute ``model_status`` says which stages were not trained.

    Raises:
        UnknownNameError: When it is neither, or there is no such precision.
        InputError: When the model or the device cannot compute in that precision, or compiled.
        IncompatibleError: When the model serves no other detector.
        FileFormatError: When the run has not ended or its files are broken.
    """
    where = torch_device(device)
    path = Path(source)
    if not path.is_dir():
        if detector is not None:
            raise IncompatibleError(
                f"'{source}' is a model of one detector; expected a run on several detectors"
            )
        return find_card(str(source)).generator(where, options, precision, compiled)
    folder = RunFolder(path)
    content, seen, unfinished = folder.read(), folder.seen(), folder.unfinished()
    place = None if detector is None else get_detector(detector)
    facts = seen.attributes() | ({MODEL_STATUS: unfinished} if unfinished else {})
    members = [member.choose(options).to(torch.device(where)) for member in folder.models(place)]
    name, particle = str(content["model"]), str(content.get("particle", ""))
    theta = _angles(content)
    return Generator(
        members, name, particle, torch.device(where), seen.all, facts, precision, compiled, theta
    )


_TASK = 5_000  # showers of a task, at least


def generate_on_cluster(
    cluster: Cluster,
    model: Generator,
    source: str | Path,
    output: str | Path,
    loading: Mapping[str, Any],
    wanted: Mapping[str, Any],
    like: Path | None = None,
    detector: str | None = None,
    force: bool = False,
    layout: str = "dense",
) -> None:
    """Generate showers into a file on the workers of a cluster; they are those of :meth:`Generator.write` on a machine like the workers'.

    Arguments:
        model: What :func:`load` returns here, on any device.
        source: As for :func:`load`; a run folder lies where the workers find it too.
        loading: Arguments of :func:`load`; the device is that of each worker.
        wanted: Arguments of :meth:`Generator.stream`, without ``like``.
        like: File of showers whose conditions are taken, where the workers find it too.
        detector: Detector of a ``like`` that does not name one.
    """
    source = Path(source).absolute() if Path(source).is_dir() else source
    like = None if like is None else like.absolute()
    with nullcontext() if like is None else open_showers(like, detector) as reference:
        request = Request(like=reference, **wanted)
        total = request.number()
        model.warn_of_same(Path(output), request)
    size = request.size * max(1, _TASK // request.size)
    starts = range(request.first, request.first + total, size)
    facts = {**wanted, "like": like, "detector": detector}
    tasks = [
        (
            str(source),
            json.dumps(loading),
            {**facts, "first": start, "n": min(size, request.first + total - start)},
        )
        for start in starts
    ]
    with ExitStack() as stack:
        advance = stack.enter_context(progress(total, f"generate {model.name}"))
        writer: ShowerWriter | None = None
        for _, parts in cluster.results(_generated, tasks, in_order=True):
            for part in parts:
                if writer is None:
                    own = part.attributes | range_facts(request.first, total)
                    names = part.particle, model.name, request.seed, own
                    writer = stack.enter_context(ShowerWriter(output, model.detector, *names, force, layout))
                part.seen = model.seen
                writer.append(part)
                advance(len(part))


@lru_cache(maxsize=1)
def _loaded(source: str, loading: str) -> Generator:
    return load(source, **json.loads(loading))


def _generated(source: str, loading: str, wanted: dict[str, Any]) -> list[SparseShowers]:
    """Return the showers of a task, made on a worker; what the model has seen is added where they are written."""
    like, detector = wanted["like"], wanted["detector"]
    own = {name: value for name, value in wanted.items() if name not in ("like", "detector")}
    model = _loaded(source, loading)
    with nullcontext() if like is None else open_showers(like, detector) as reference:
        parts = list(model.stream_sparse(like=reference, **own))
    for part in parts:
        part.forget_seen()
    return parts
