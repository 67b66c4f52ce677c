"""Pack simulated showers into small files, unpack them, and make the images that ship with the package.

python scripts/pack_showers.py pack showers/ild50-92*.h5 -o data/ild-photon-50gev-sealed.xz
python scripts/pack_showers.py unpack data/ild-photon-50gev-sealed.xz -o showers/ild-photon-50gev-sealed.h5
python scripts/pack_showers.py images geant4-1.h5 geant4-2.h5 -o src/caloforge/data/ild-10x10-50gev.h5
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from caloforge.errors import CaloforgeError, InputError
from caloforge.showers import open_showers
from caloforge.zoo.packing import STEP, pack, pack_projections, unpack


def main() -> int:
    """Read the arguments and pack or unpack; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("pack", "unpack", "images"))
    parser.add_argument("files", type=Path, nargs="+", help="files in the order in which they are joined")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--step", type=float, default=STEP, help="images: step of the energies, MeV")
    parser.add_argument("--detector", default="ild-ecal", help="images: detector of files that name none")
    parser.add_argument("--force", action="store_true", help="replace the output")
    options = parser.parse_args()
    output = options.output
    try:
        if options.what == "pack":
            n = pack(options.files, output, options.force)
        elif options.what == "images":
            pack_projections(
                options.files, output, options.step, detector=options.detector, force=options.force
            )
            with open_showers(output) as file:
                n = len(file)
        elif len(options.files) == 1:
            n = unpack(options.files[0], output, options.force)
        else:
            msg = f"{len(options.files)} packed files; expected one to unpack at a time"
            raise InputError(msg)
    except CaloforgeError as error:
        print(f"pack_showers: error: {error}", file=sys.stderr)
        return error.exit_code
    size = output.stat().st_size
    print(f"wrote {output}: {n} showers, {size / 1e6:.2f} MB, {size / n:.0f} bytes each")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
