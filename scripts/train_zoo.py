"""Train the shipped models side by side, then gather their weights and cards.

python scripts/train_zoo.py --data showers --runs runs                    all of them, one at a time on each GPU
python scripts/train_zoo.py --data showers --runs runs --only clic-electron --gpus 0,1 --jobs 4
python scripts/train_zoo.py --data showers --runs runs --gather-only      weights and cards of finished runs
python scripts/train_zoo.py --data showers --held sealed --remeasure      shipped weights as they are, measured again
python scripts/train_zoo.py --data showers --recalibrate --only clic-electron/flow-matching
                                                                          the calibration of shipped weights again
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from caloforge.errors import CaloforgeError
from caloforge.zoo.build import ZooBuilder
from caloforge.zoo.recipes import Jobs, chosen, read_recipes, read_sealed
from caloforge.zoo.store import ZOO

RECIPES = Path(__file__).with_name("zoo.toml")


def main() -> int:
    """Read the arguments, train, gather; return the exit code."""
    options = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    failed: list[str] = []
    try:
        recipes = chosen(read_recipes(options.recipes), options.only)
        gpus = None if options.gpus is None else tuple(gpu.strip() for gpu in options.gpus.split(","))
        jobs = Jobs(options.runs, options.jobs, gpus, options.device, options.threads, options.fresh)
        sealed = read_sealed(options.recipes)
        builder = ZooBuilder(recipes, sealed, options.data, options.held, jobs, options.zoo, options.n)
        if options.remeasure or options.recalibrate:
            for name in recipes:
                (builder.remeasure if options.remeasure else builder.recalibrate)(name)
            return 0
        if not options.gather_only:
            failed = builder.train()
        if not options.train_only:
            for name in recipes:
                if name not in failed:
                    builder.gather(name)
    except CaloforgeError as error:
        print(f"train_zoo: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("train_zoo: stopped; the same command continues", file=sys.stderr)
        return 130
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the showers to train on")
    parser.add_argument("--held", type=Path, help="folder of the sealed showers to measure with")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the run folders")
    parser.add_argument("--zoo", type=Path, default=ZOO, help="folder of weights and cards; the package's")
    parser.add_argument("--recipes", type=Path, default=RECIPES)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="DATASET/MODEL, DATASET or MODEL"
    )
    parser.add_argument("--jobs", type=int, help="trainings at a time; as many as GPUs")
    parser.add_argument("--gpus", help="numbers of the GPUs, such as 0,1; all of them")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="instead of the recipes' devices")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a training")
    parser.add_argument("--fresh", action="store_true", help="train again from nothing")
    parser.add_argument("-n", type=int, help="showers to measure with or to calibrate on; all of them")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--train-only", action="store_true", help="leave weights and cards for later")
    only.add_argument("--gather-only", action="store_true", help="weights and cards of finished runs")
    only.add_argument(
        "--recalibrate", action="store_true", help="fit the calibration of shipped weights again"
    )
    only.add_argument("--remeasure", action="store_true", help="measure shipped weights again, without runs")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
