"""Project ild-ecal showers of 50 GeV to 10 x 10 images and pack them into one small file.

python scripts/pack_projections.py geant4-1.h5 geant4-2.h5 -o src/caloforge/data/ild-10x10-50gev.h5
"""

from __future__ import annotations

import argparse
from pathlib import Path

from caloforge.showers import open_showers
from caloforge.zoo.packing import STEP, pack_projections


def main() -> None:
    """Read the arguments, pack, and say how large the file is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path, help="files of showers, kept in this order")
    parser.add_argument("-o", "--output", required=True, type=Path)
    parser.add_argument("--step", type=float, default=STEP, help="step of the energies, MeV")
    parser.add_argument("--detector", default="ild-ecal", help="detector of files that name none")
    parser.add_argument("--force", action="store_true")
    given = parser.parse_args()
    path = pack_projections(
        given.sources, given.output, given.step, detector=given.detector, force=given.force
    )
    with open_showers(path) as file:
        size = path.stat().st_size
        print(f"wrote {path}: {len(file)} images, {size / 2**20:.2f} MiB, {size / len(file):.0f} bytes each")


if __name__ == "__main__":
    main()
