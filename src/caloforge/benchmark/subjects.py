"""What is timed: the models, the detector that Geant4 simulates for each, and the beam that all of one detector share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caloforge.errors import IncompatibleError
from caloforge.files import sha256_file
from caloforge.generate import Generator, accepted_range
from caloforge.geometry import DETECTORS, Beam, Detector, get_detector, project
from caloforge.units import AngleSpec, EnergySpec
from caloforge.zoo.store import find_card, load

__all__ = ["Subject", "beams_of", "card_time", "subject_of"]


@dataclass(frozen=True)
class Subject:
    """A model to be timed."""

    name: str  # as given, of a data set's best model its full name
    source: str  # what ``load`` takes in any folder
    generator: Generator
    simulated: Detector | None  # the detector that Geant4 simulates for it; None where there is none
    digest: str  # of its weights
    facts: Mapping[str, Any]  # its card; empty for a run folder

    @property
    def place(self) -> str:
        """Name of the detector whose models are compared."""
        return (self.simulated or self.generator.detector).name

    def span(self, condition: str) -> tuple[float, float] | None:
        """Return the lowest and highest value of a condition in its training; None where it has none."""
        model = self.generator.model
        if condition not in model.columns:
            return None
        columns = model.columns[condition]
        return float(model.condition_low[columns].min()), float(model.condition_high[columns].max())


def subject_of(source: str | Path) -> Subject:
    """Return a model to be timed."""
    path = Path(source)
    if path.is_dir():
        name, where, facts, weights = str(source), str(path.resolve()), {}, sorted(path.glob("*.safetensors"))
    else:
        card = find_card(str(source))
        name = where = card.name
        facts, weights = card.content, sorted(card.path.parent.glob(f"{card.path.stem}*.safetensors"))
    generator = load(where, "cpu")
    digest = hashlib.sha256("".join(map(sha256_file, weights)).encode()).hexdigest()
    return Subject(name, where, generator, _simulated(generator.detector), digest, facts)


def _simulated(detector: Detector) -> Detector | None:
    """Return the detector itself, or of images the one whose showers are projected to them, or None."""
    if detector.simulable:
        return detector
    for other in map(get_detector, DETECTORS.names()):
        if other.simulable and other.is_grid and detector.name.startswith(other.name):
            with suppress(IncompatibleError):
                project(np.zeros((1, other.n_cells), np.float32), other, detector)
                return other
    return None


def beams_of(
    subjects: Sequence[Subject], energy: str | EnergySpec | None, theta: str | float | AngleSpec | None
) -> dict[str, Beam]:
    """Return the beam of each detector: its own, cut to what all of its models were trained on, or that which is wanted."""
    beams: dict[str, Beam] = {}
    for subject in subjects:
        own = (subject.simulated or subject.generator.detector).beam
        beam = beams.setdefault(subject.place, own.replace(energy, theta))
        span = subject.span("incident_energy")
        if span is not None:
            beam = beam.replace(
                energy=EnergySpec(*_common(subject, "energy", beam.energy, span, energy), beam.energy.kind)
            )
        trained = subject.generator.theta
        angles = subject.span("incident_theta") or (trained.low, trained.high)
        beams[subject.place] = beam.replace(
            theta=AngleSpec(*_common(subject, "theta", beam.theta, angles, theta))
        )
    return beams


def _common(
    subject: Subject, name: str, spec: EnergySpec | AngleSpec, span: tuple[float, float], wanted: object
) -> tuple[float, float]:
    """Return the part of a range that a model was trained on.

    Raises:
        IncompatibleError: When there is none, or the given range is wider than the training of a model.
    """
    place = subject.simulated or subject.generator.detector
    least, most = accepted_range(f"incident_{name}", *span, place.beam)
    low, high = max(spec.low, float(f"{span[0]:.4g}")), min(spec.high, float(f"{span[1]:.4g}"))
    low, high = (
        (spec.low if spec.low >= least else low),
        (spec.high if spec.high <= most else high),
    )
    if low > high or (wanted is not None and (low, high) != (spec.low, spec.high)):
        unit = " MeV" if name == "energy" else " degrees"
        msg = f"'{subject.name}' was trained on {name} {span[0]:g} to {span[1]:g}{unit}, not on {spec}{'' if name == 'energy' else unit}"
        raise IncompatibleError(msg)
    return low, high


def card_time(subjects: Sequence[Subject]) -> dict[str, Any] | None:
    """Return Geant4's processor time a shower of the training showers, as the first card has it."""
    for subject in subjects:
        files = subject.facts.get("data", {}).get("files", ())
        known = [entry for entry in files if "cpu_seconds_per_shower" in entry["made"]]
        if known:
            sizes = [entry["showers"] for entry in known]
            times = [1e3 * entry["made"]["cpu_seconds_per_shower"] for entry in known]
            mean = float(f"{np.average(times, weights=sizes):.4g}")
            return {
                "cpu_ms": mean,
                "cpu_uncertainty": None,
                "showers": sum(sizes),
                "origin": "training showers, as the card says",
            }
    return None
