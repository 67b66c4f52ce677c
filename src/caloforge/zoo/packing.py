"""A small file of 10 x 10 projections, the truth that ships with the package.

Images of ``ild-ecal`` showers of 50 GeV, rounded to a fixed step and compressed hard, in the project's own format. The step
is a power of two, so that float32 holds the rounded energies exactly and the rest of the mantissa compresses away.
Rounding to a fixed step, not to a number of digits, keeps high cells as fine as low ones: with 1/256 MeV the peak cell
(650 +- 47 MeV) takes some 40,000 values, while ten bits of mantissa would leave 400 and tie the quantiles.
An image takes about 140 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from caloforge.errors import InputError
from caloforge.files import atomic_path, check_output, sha256_file
from caloforge.geometry import get_detector
from caloforge.showers import Showers, ShowerSource, write_showers
from caloforge.showers.projection import projected_chunks
from caloforge.studies.sources import open_file

__all__ = ["IMAGE", "pack_projections"]

IMAGE = "ild-ecal-10x10"
STEP = 1.0 / 256.0
"""Step of the energies, MeV; the threshold of the study is 0.1 MeV."""


def pack_projections(
    sources: Sequence[str | Path],
    output: str | Path,
    step: float = STEP,
    energy: float = 50_000.0,
    detector: str = "ild-ecal",
    force: bool = False,
) -> Path:
    """Project files of showers and pack them into one.

    Arguments:
        sources: Files of ``ild-ecal`` showers or of their images, in the order in which they are kept.
        output: The file to write.
        step: Step of the energies, a power of two, MeV.
        energy: The one incident energy that is expected, MeV.
        detector: Detector of files that do not name their own.
        force: Replace a file that is there.

    Raises:
        InputError: For another energy, or a step that is no power of two.
    """
    output = check_output(output, force)
    if step <= 0 or np.frexp(step)[0] != 0.5:
        msg = f"step is {step} MeV; expected a power of two, such as 1/256"
        raise InputError(msg)
    with atomic_path(output, force) as part:
        raw = part.with_name(part.name + ".raw")
        try:
            write_showers(raw, _images(sources, step, energy, detector))
            _recompress(raw, part, sources, step)
        finally:
            raw.unlink(missing_ok=True)
    return output


def _images(sources: Sequence[str | Path], step: float, energy: float, detector: str) -> Iterator[Showers]:
    """Yield rounded images, source after source, with only the facts that all of them share."""
    for path in sources:
        with open_file(path, detector) as file:
            if not np.allclose(file.incident_energy, energy, rtol=1e-6):
                low, high = file.incident_energy.min(), file.incident_energy.max()
                msg = f"{path}: incident energies from {low:g} to {high:g} MeV; expected {energy:g}"
                raise InputError(msg)
            for chunk in _projected(file):
                cells = (np.round(chunk.cells / step) * step).astype(np.float32)
                yield chunk.replace(
                    cells=cells, particle="gamma", source="geant4", seed=None, attributes={}, conditions={}
                )


def _projected(file: ShowerSource) -> Iterator[Showers]:
    if file.detector == get_detector(IMAGE):
        return file.chunks()
    return projected_chunks(file, IMAGE)


def _recompress(raw: Path, packed: Path, sources: Sequence[str | Path], step: float) -> None:
    """Copy a file with the strongest compression, and note what it was made of."""
    with h5py.File(raw, "r") as old, h5py.File(packed, "w", libver=("v108", "v110")) as new:
        for name, value in old.attrs.items():
            new.attrs[name] = value
        new.attrs["rounded_to_mev"] = step
        new.attrs["packed_from"] = [Path(path).name for path in sources]
        new.attrs["packed_from_sha256"] = [sha256_file(path) for path in sources]
        for name, values in old.items():
            new.create_dataset(
                name,
                data=values[:],
                chunks=(min(len(values), 8192), values.shape[1]),
                compression="gzip",
                compression_opts=9,
                shuffle=True,
            )
