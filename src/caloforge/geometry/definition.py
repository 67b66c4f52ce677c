"""Detectors in TOML files: layers of absorber, active material and gap, and their cells.

A detector of this family is fully described by a :class:`DetectorDefinition`. Some built-in ones are made from it, and a user's own from the
same fields in a TOML file::

    name = "my-ecal"
    nx = 20
    ny = 20
    pitch = 10.0                    # mm; or pitch_x and pitch_y; or the width of the scored area
    padding = 2                     # cells by which plates reach beyond the scored ones

    [[layers]]
    repeat = 15
    absorber = "G4_W"
    absorber_mm = 3.5
    active = "G4_Si"
    active_mm = 0.5
    gap_mm = 2.0

    [beam]
    particle = "gamma"
    energy = "10-50GeV"
    theta = "90"
    entry = [10, 10]

The segmentation (``nx``, ``ny``, ``pitch``, or ``r_edges`` and ``n_alpha`` of rings around the beam) may differ by layer: as a list with a
value for each layer, or in the entries of ``layers``. Materials are Geant4's NIST ones, or the file's own in ``[materials.NAME]``.

Each field is checked; an error names the file and the field. ``sampling_fraction`` may be set once it has been measured: the mean
visible over the mean incident energy in the detector's default beam, with what leaks there. Without it an estimate from energy losses is
used, for showers that do not leak.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from caloforge.errors import ConfigError, FileFormatError, InputError
from caloforge.geometry.building import Cells, LayerPlan, Plates, Rings, build_detector
from caloforge.geometry.detector import Detector
from caloforge.geometry.materials import Material, get_material
from caloforge.geometry.tables import (
    BeamDefinition,
    Counts,
    Edges,
    Layers,
    Lengths,
    MaterialDefinition,
    Positive,
    Thickness,
)
from caloforge.settings import Settings, validated
from caloforge.text_files import parse_json, read_toml
from caloforge.units import AngleSpec

__all__ = [
    "BeamDefinition",
    "DetectorDefinition",
    "Layers",
    "MaterialDefinition",
    "detector_from_definition",
    "load_detector",
]

_SQUARE = ("nx", "ny", "pitch", "pitch_x", "pitch_y", "width", "width_x", "width_y")
_MOST_LAYERS, _MOST_UNITS, _MOST_CELLS = 1000, 20_000, 10_000_000
_ROUND = ("r_edges", "n_r", "pitch_r", "n_alpha")


class DetectorDefinition(Settings):
    """Cells in rows and columns, or in rings around the beam, behind plates or concentric cylinders."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    description: str = "user's own calorimeter"
    nx: Counts = None
    ny: Counts = None
    pitch: Lengths = None  # mm; or ``pitch_x`` and ``pitch_y``
    pitch_x: Lengths = None
    pitch_y: Lengths = None
    # mm, of the scored area, from which pitches follow; or ``width_x`` and ``width_y``
    width: Positive | None = None
    width_x: Positive | None = None
    width_y: Positive | None = None
    r_edges: Edges = None  # mm; or ``n_r`` rings of ``pitch_r``
    n_r: Counts = None
    pitch_r: Lengths = None
    n_alpha: Counts = None
    # by how much the plates reach beyond the scored cells, on each side: cells (the largest), or mm
    padding: Annotated[int, Field(ge=0, le=200)] = 0
    padding_mm: Thickness | None = None
    inner_radius: Positive | None = None  # mm; layers are then concentric cylinders, not plates
    medium: str = "G4_AIR"
    # measured mean visible over incident energy in the default beam, leakage included; None for the estimate
    sampling_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    materials: dict[str, MaterialDefinition] = Field(default_factory=dict)
    layers: list[Layers] = Field(default_factory=list)  # front to back, one or more
    beam: BeamDefinition = BeamDefinition()

    @model_validator(mode="after")
    def _consistent(self) -> DetectorDefinition:
        self._check_kind()
        self._material("medium", self.medium)
        plans = self.plans
        if len({plan.active is None for plan in plans}) > 1:
            raise ValueError(
                "some layers have 'depth_mm' alone, others materials; expected one of these in all"
            )
        first = plans[0].cells
        if self.inner_radius is not None and (plans[0].active is None or isinstance(first, Cells)):
            raise ValueError(
                "'inner_radius' makes cylinders of layers with materials and rings of cells only"
            )
        if isinstance(first, Rings):
            self._check_rings()
            return self
        if self.beam.entry is not None and self.beam.entry_mm is not None:
            raise ValueError("'beam.entry' and 'beam.entry_mm' are two ways to say the same; give one")
        entry, place = self.beam.entry, self._entry(first)
        if entry is not None and not (0 <= entry[0] < first.nx and 0 <= entry[1] < first.ny):
            raise ValueError(f"'beam.entry' {list(entry)} is outside the {first.nx} x {first.ny} cells")
        if abs(place[0]) > first.nx * first.pitch_x / 2 or abs(place[1]) > first.ny * first.pitch_y / 2:
            raise ValueError(f"'beam.entry_mm' {list(place)} is outside the cells of the first layer")
        return self

    def _check_kind(self) -> None:
        """Check that there are rows and columns of cells, or rings, and not both."""
        square, rings = ([key for key in keys if self._has(key)] for keys in (_SQUARE, _ROUND))
        if square and rings:
            raise ValueError(
                f"'{square[0]}' is for rows and columns, '{rings[0]}' for rings; expected one kind of cells"
            )
        if not square and not rings:
            raise ValueError("cells are missing: give 'nx', 'ny' and 'pitch', or 'r_edges' and 'n_alpha'")
        if square and not (self._has("nx") and self._has("ny")):
            raise ValueError("give 'nx' and 'ny', the numbers of cells of each layer")
        if not self.layers:
            raise ValueError("key 'layers': expected one [[layers]] table or more")
        if (n := sum(run.repeat for run in self.layers)) > _MOST_LAYERS:
            raise ValueError(f"key 'layers': {n:,} layers; expected at most {_MOST_LAYERS:,}")
        if (n := sum(run.repeat * run.units for run in self.layers)) > _MOST_UNITS:
            raise ValueError(f"key 'layers': {n:,} sampling units; expected at most {_MOST_UNITS:,}")
        if self.padding and self.padding_mm is not None:
            raise ValueError("'padding' (cells) and 'padding_mm' are two ways to say the same; give one")

    def _check_rings(self) -> None:
        """Check what rings around the beam need."""
        if self.beam.entry is not None or self.beam.entry_mm is not None:
            raise ValueError(
                "'beam.entry': rings are centred on the beam, which enters at x = y = 0; leave it out"
            )
        theta = AngleSpec.parse(self.beam.theta)
        if not theta.low == theta.high == 90.0:
            raise ValueError(f"'beam.theta' is {self.beam.theta}; rings are for particles at 90 degrees")
        if self.padding:
            raise ValueError("'padding' counts cells in rows; rings need 'padding_mm'")

    def _has(self, key: str) -> bool:
        return getattr(self, key) is not None or any(
            getattr(run, key, None) is not None for run in self.layers
        )

    def _values(self, key: str) -> list[Any]:
        """Return the value of each layer, its own or that of the whole detector; None where there is neither."""
        n = sum(run.repeat for run in self.layers)
        whole = getattr(self, key)
        listed = isinstance(whole, tuple) and (key != "r_edges" or isinstance(whole[0], tuple))
        if listed and len(whole) != n:
            raise ValueError(f"key '{key}' has {len(whole)} values; expected one for each of the {n} layers")
        common = list(whole) if listed else [whole] * n
        own = [getattr(run, key) for run in self.layers for _ in range(run.repeat)]
        if listed and any(value is not None for value in own):
            raise ValueError(
                f"key '{key}' is a list with a value for each layer, and stands in [[layers]] too; give one"
            )
        return [a if b is None else b for a, b in zip(common, own, strict=True)]

    def _pitches(self, axis: str, numbers: list[int]) -> list[float]:
        """Return each layer's pitch along x or y, mm; what a layer has itself comes first."""
        special, general = f"pitch_{axis}", "pitch"
        width = getattr(self, f"width_{axis}") or self.width
        given = self._has(special) or self._has(general)
        if width and given:
            raise ValueError("'width' and 'pitch' are two ways to say the same; give one")
        if width:
            return [width / n for n in numbers]
        own = [run for run in self.layers for _ in range(run.repeat)]
        whole = [a or b for a, b in zip(self._values(special), self._values(general), strict=True)]
        pitches = [getattr(run, special) or run.pitch or pitch for run, pitch in zip(own, whole, strict=True)]
        if not all(pitches):
            raise ValueError("give 'pitch', or both 'pitch_x' and 'pitch_y', or 'width', in mm")
        return pitches

    def _segments(self) -> Sequence[Cells | Rings]:
        """Return the cells of each layer."""
        if any(map(self._has, _ROUND)):
            return self._ring_segments()
        numbers = [self._values("nx"), self._values("ny")]
        if None in numbers[0] or None in numbers[1]:
            raise ValueError("give 'nx' and 'ny', the numbers of cells of each layer")
        pitches = [self._pitches(axis, n) for axis, n in zip("xy", numbers, strict=True)]
        return [Cells(*values) for values in zip(*numbers, *pitches, strict=True)]

    def _ring_segments(self) -> list[Rings]:
        """Return the rings of each layer."""
        tables: tuple[DetectorDefinition | Layers, ...] = (self, *self.layers)
        for where in tables:
            if where.r_edges is not None and (where.n_r is not None or where.pitch_r is not None):
                raise ValueError(
                    "'r_edges', and 'n_r' with 'pitch_r', are two ways to say the same; give one"
                )
        if self._has("n_r") != self._has("pitch_r"):
            raise ValueError("give both 'n_r' and 'pitch_r' (mm), or 'r_edges'")
        found = []
        each = [run for run in self.layers for _ in range(run.repeat)]
        columns = (self._values(key) for key in _ROUND)
        for run, edges, n_r, pitch_r, n_alpha in zip(each, *columns, strict=True):
            equal = run.n_r is not None or run.pitch_r is not None or edges is None
            if n_alpha is None or (equal and (n_r is None or pitch_r is None)):
                raise ValueError("give 'r_edges', or 'n_r' and 'pitch_r' (mm), and 'n_alpha' of each layer")
            steps = tuple(pitch_r * k for k in range(n_r + 1)) if equal else edges
            found.append(Rings(steps, n_alpha))
        return found

    @cached_property
    def plans(self) -> tuple[LayerPlan, ...]:
        """The layers, front to back.

        Raises:
            ValueError: When segmentation or materials are wrong; names the key.
        """
        plans: list[LayerPlan] = []
        cells = self._segments()
        if (n := sum(one.n_cells for one in cells)) > _MOST_CELLS:
            raise ValueError(f"{n:,} cells; expected at most {_MOST_CELLS:,}")
        segments: Iterator[Cells | Rings] = iter(cells)
        for number, run in enumerate(self.layers):
            absorber, active = (
                None if name is None else self._material(f"layers.{number}.{key}", name)
                for key, name in (("absorber", run.absorber), ("active", run.active))
            )
            thickness = run.active_mm or 0.0
            depth = run.depth_mm or run.units * (run.absorber_mm + thickness + run.gap_mm)
            for _ in range(run.repeat):
                plans.append(
                    LayerPlan(
                        next(segments),
                        depth,
                        run.units,
                        absorber,
                        run.absorber_mm,
                        active,
                        thickness,
                        run.gap_mm,
                    )
                )
        return tuple(plans)

    @cached_property
    def _own_materials(self) -> dict[str, Material]:
        made = {}
        for name, one in self.materials.items():
            try:
                made[name] = one.material(name)
            except InputError as error:
                raise ValueError(f"key 'materials.{name}': {error}") from error
        return made

    def _material(self, key: str, name: str) -> Material:
        try:
            return get_material(name, self._own_materials)
        except InputError as error:
            raise ValueError(f"key '{key}': {error}") from error

    def _entry(self, first: Cells) -> tuple[float, float]:
        """Return where the beam enters, mm."""
        if self.beam.entry_mm is not None:
            return self.beam.entry_mm
        ix, iy = self.beam.entry or (first.nx // 2, first.ny // 2)
        return (ix + 0.5 - first.nx / 2) * first.pitch_x, (iy + 0.5 - first.ny / 2) * first.pitch_y

    def build(self, definition: str = "") -> Detector:
        """Return the detector; ``definition`` is the JSON text of a user's own.

        Raises:
            InputError: When cylinders are too curved for their rings.
        """
        first = self.plans[0].cells
        place = (0.0, 0.0) if isinstance(first, Rings) else self._entry(first)
        cells = [plan.cells for plan in self.plans if isinstance(plan.cells, Cells)]
        padding = (self.padding_mm or 0.0,) * 2
        if self.padding:
            padding = tuple(
                self.padding * max(getattr(one, key) for one in cells) for key in ("pitch_x", "pitch_y")
            )
        plates = Plates(self._material("medium", self.medium), padding, self.inner_radius or 0.0)
        return build_detector(
            self.name,
            self.description,
            self.plans,
            plates,
            self.beam.beam(*place),
            self.sampling_fraction,
            definition,
        )


def load_detector(path: str | Path) -> Detector:
    """Read a detector from a TOML file.

    Raises:
        FileFormatError: When the file is missing or not TOML.
        ConfigError: When a field is missing, unknown or wrong; names the file and the field.
    """
    return _build(read_toml(path), str(path))


def detector_from_definition(text: str) -> Detector:
    """Rebuild a user's detector from the JSON text in its files.

    Raises:
        ConfigError: When the text does not describe a detector.
    """
    try:
        return _build(parse_json(text, "detector definition"), "detector definition")
    except FileFormatError as error:
        raise ConfigError(str(error)) from error


def _build(content: Any, where: str) -> Detector:
    spec = validated(DetectorDefinition, content, where)
    try:
        made = spec.build(spec.model_dump_json(exclude_none=True))
    except (InputError, ArithmeticError) as error:
        raise ConfigError(f"{where}: {error}") from error
    for key, number in (
        ("length", made.length),
        ("depth", made.depth_x0),
        ("sampling fraction", made.sampling_fraction),
    ):
        if not math.isfinite(number):
            raise ConfigError(
                f"{where}: the {key} of the stack is {number}; expected thicknesses of a calorimeter"
            )
    return made
