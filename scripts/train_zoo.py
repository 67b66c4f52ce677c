"""Train the shipped models side by side, then gather their weights and cards.

python scripts/train_zoo.py --data showers --runs runs                    all of them, one at a time on each GPU
python scripts/train_zoo.py --data showers --runs runs --only clic-electron --gpus 0,1 --jobs 4
python scripts/train_zoo.py --data showers --runs runs --gather-only      weights and cards of finished runs
python scripts/train_zoo.py --data showers --held sealed --remeasure      shipped weights as they are, measured again
python scripts/train_zoo.py --data showers --recalibrate --only clic-electron/flow-matching-fast
                                                                          the last, fit-only stage of shipped weights again

Cards are measured with sealed files alone: the recipe's held files, whose simulation seeds [sealed] must name.
A run that was stopped goes on where it was; a finished one is not trained again. Recipes have fixed numbers of epochs and
seeds, so that training again from nothing (--fresh) gives the same models, up to the rounding of the GPU's sums.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from training_jobs import add_job_options, device_of, finished, gpus_of, train_side_by_side
from zoo_recipes import Recipe, chosen, found, read_recipes, read_sealed, require_unsealed

from caloforge.errors import CaloforgeError
from caloforge.files import read_json, write_json
from caloforge.train import RunFolder
from caloforge.train.folder import source_commit
from caloforge.zoo.cards import measure, measure_card, open_held, speed_of
from caloforge.zoo.recalibration import recalibrate
from caloforge.zoo.shipping import add_to_card, ship
from caloforge.zoo.store import ZOO, Card, find_card, load

HERE = Path(__file__).parent


def main() -> int:
    """Read the arguments, train, gather; return how many models failed."""
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        recipes = chosen(read_recipes(given.recipes), given.only)
        sealed = read_sealed(given.recipes)
        folders = [given.data] if given.held is None else [given.data, given.held]
        if given.recalibrate:
            for name, recipe in recipes.items():
                recalibrate_one(name, found(recipe.data, [given.data], needed=False), given)
            return 0
        if given.remeasure:
            for name, recipe in recipes.items():
                remeasure(name, found(recipe.held, folders), _seeds(name, sealed), given)
            return 0
        files = {name: found(recipe.data, [given.data]) for name, recipe in recipes.items()}
        for name in recipes:
            require_unsealed(name, files[name], sealed)
        given.runs.mkdir(parents=True, exist_ok=True)
        failed = [] if given.gather_only else train_all(recipes, files, given)
        if not given.train_only:
            for name, recipe in recipes.items():
                if name in failed or not finished(given.runs / name):
                    print(f"{name}: is not trained; left out", flush=True)
                    continue
                held = found(recipe.held, folders, needed=False)
                gather(name, recipe, files[name], held, _seeds(name, sealed), given)
    except CaloforgeError as error:
        print(f"train_zoo: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("train_zoo: stopped; the same command goes on", file=sys.stderr)
        return 130
    return 1 if failed else 0


def train_all(
    recipes: Mapping[str, Recipe], files: Mapping[str, list[Path]], given: argparse.Namespace
) -> list[str]:
    """Train all recipes and time them on the GPU; return the names of those that failed."""
    failed = train_side_by_side(recipes, files, given)
    if gpus_of(given) and device_of(given, "cuda") == "cuda":
        for name in recipes:
            if name not in failed:
                _time_on_gpu(given.runs / name, files[name])
    return failed


def gather(
    name: str,
    recipe: Recipe,
    files: Sequence[Path],
    held: Sequence[Path],
    sealed: Collection[int],
    given: argparse.Namespace,
) -> Card:
    """Ship a finished run: weights, card, metrics on sealed showers, speed."""
    run = given.runs / name
    card = ship(run, name, files, given.zoo, recipe.best)
    with ExitStack() as stack:
        model = card.generator()
        truth = open_held(stack, card.content["detector"], held, model, sealed)
        key = {
            "weights": [entry["sha256"] for entry in card.content["weights"]],
            "held": [{k: part[k] for k in ("sha256", "showers") if k in part} for part in truth.described],
            "n": given.n,
            "commit": source_commit(),
        }
        store = run / "held-out.json"
        known = read_json(store) if store.exists() else {}
        if known.get("key") != key:
            print(f"{name}: is measured against {len(truth.showers)} showers", flush=True)
            known = {"key": key, "metrics": measure(model, truth, n=given.n)}
            write_json(store, known)
        known["metrics"]["reference"]["parts"] = list(truth.described)
        speed = {"cpu": speed_of(model, truth.showers)}
    if (run / "speed.json").exists():
        speed["gpu"] = read_json(run / "speed.json")
    card = add_to_card(card, {"metrics": known["metrics"], "speed": speed})
    size = sum(entry["bytes"] for entry in card.content["weights"])
    print(f"wrote {card.path} ({size / 1e6:.2f} MB of weights)", flush=True)
    return card


def remeasure(name: str, held: Sequence[Path], sealed: Collection[int], given: argparse.Namespace) -> None:
    """Measure the shipped weights of a model again, without its run folder, and write its card."""
    card = find_card(name, given.zoo)
    print(f"{name}: is measured against {', '.join(path.name for path in held)}", flush=True)
    card = measure_card(card, held, sealed, given.n)
    reference = card.content["metrics"]["reference"]
    print(f"wrote {card.path} ({reference['n']} showers, sealed: {reference['sealed']})", flush=True)


def recalibrate_one(name: str, files: Sequence[Path], given: argparse.Namespace) -> None:
    """Fit the last stage of a shipped model again, on files of its training showers."""
    device = "cuda" if device_of(given, "cuda") == "cuda" else "cpu"
    card = recalibrate(find_card(name, given.zoo), files, device, n=given.n)
    print(f"wrote {card.path} (calibrated on {card.content['calibration']['showers']} showers)", flush=True)


def _seeds(name: str, sealed: Mapping[str, Collection[int]]) -> Collection[int]:
    """Return the sealed seeds of the data set of DATASET/MODEL."""
    return sealed.get(name.partition("/")[0], ())


def _time_on_gpu(run: Path, files: Sequence[Path]) -> None:
    """Time a trained model alone on the GPU, once, at the batch size of the CPU's time and at a large one."""
    store = run / "speed.json"
    if store.exists() and store.stat().st_mtime >= RunFolder(run).info.stat().st_mtime:
        return
    model = load(run, "cuda")
    with ExitStack() as stack:
        like = open_held(stack, model.detector.name, files[:1]).showers[:10_000]
    found = speed_of(model, like)
    write_json(store, {**found, "large_batch": speed_of(model, like, batch=min(10_000, len(like)))})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the showers to train on")
    parser.add_argument("--held", type=Path, help="folder of the sealed showers to measure with")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the run folders")
    parser.add_argument("--zoo", type=Path, default=ZOO, help="where weights and cards go; the package's own")
    parser.add_argument("--recipes", type=Path, default=HERE / "zoo.toml")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="DATASET/MODEL, DATASET or MODEL"
    )
    add_job_options(parser)
    parser.add_argument("-n", type=int, help="showers to measure with or to calibrate on; all of them")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--train-only", action="store_true", help="leave weights and cards for later")
    only.add_argument("--gather-only", action="store_true", help="weights and cards of finished runs")
    only.add_argument(
        "--recalibrate",
        action="store_true",
        help="fit the last stage of shipped weights to those of the recipe's files that are there",
    )
    only.add_argument(
        "--remeasure", action="store_true", help="measure shipped weights again; no run folder is needed"
    )
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
