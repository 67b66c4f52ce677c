"""Train the shipped models side by side, then gather their weights and cards.

python scripts/train_zoo.py --data showers --runs runs                    all of them, one at a time on each GPU
python scripts/train_zoo.py --data showers --runs runs --only clic-electron --gpus 0,1 --jobs 4
python scripts/train_zoo.py --data showers --runs runs --gather-only      weights and cards of finished runs

A run that was stopped goes on where it was; a finished one is not trained again. Recipes have fixed numbers of epochs and
seeds, so that training again from nothing (--fresh) gives the same models, up to the rounding of the GPU's sums.
"""

from __future__ import annotations

import argparse
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from zoo_recipes import Recipe, chosen, found, prepared, read_recipes, train_words

from caloforge.errors import CaloforgeError
from caloforge.files import read_json, write_json
from caloforge.generate import Generator, load
from caloforge.generate.shipping import add_to_card, ship
from caloforge.generate.zoo import ZOO, Card
from caloforge.studies.cards import measure, open_held, speed_of
from caloforge.train import RunFolder

HERE = Path(__file__).parent


def main() -> int:
    """Read the arguments, train, gather; return how many models failed."""
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        recipes = chosen(read_recipes(given.recipes), given.only)
        folders = [given.data] if given.held is None else [given.data, given.held]
        files = {name: found(recipe.data, [given.data]) for name, recipe in recipes.items()}
        given.runs.mkdir(parents=True, exist_ok=True)
        failed = [] if given.gather_only else train_all(recipes, files, given)
        if not given.train_only:
            for name, recipe in recipes.items():
                if name in failed or not _finished(given.runs / name):
                    print(f"{name}: is not trained; left out", flush=True)
                    continue
                held = found(recipe.held, folders, needed=False)
                gather(name, recipe, files[name], held, given)
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
    """Train all recipes, ``jobs`` at a time over the GPUs; return the names of those that failed."""
    gpus = _gpus(given)
    jobs = given.jobs or max(1, len(gpus))
    free: queue.Queue[str] = queue.Queue()
    for number in range(jobs):
        free.put(gpus[number % len(gpus)] if gpus else "")
    running: list[subprocess.Popen[bytes]] = []

    def one(name: str) -> str | None:
        gpu = free.get()
        try:
            return name if _train(name, recipes[name], files[name], gpu, given, running) else None
        except CaloforgeError as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            return name
        finally:
            free.put(gpu)

    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(one, name) for name in recipes]
        try:
            failed = [name for name in (future.result() for future in futures) if name]
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()
            raise
    if gpus and _device(given, "cuda") == "cuda":
        for name in recipes:
            if name not in failed:
                _time_on_gpu(given.runs / name, files[name])
    return failed


def _train(
    name: str,
    recipe: Recipe,
    files: Sequence[Path],
    gpu: str,
    given: argparse.Namespace,
    running: list[subprocess.Popen[bytes]],
) -> bool:
    """Train one recipe in a process of its own, its output in a log; return whether it failed."""
    run = given.runs / name
    run.parent.mkdir(parents=True, exist_ok=True)
    data = prepared(recipe, files, given.runs / "images")
    fresh = given.fresh or (run.is_dir() and not (run / "run.json").exists())
    device = _device(given, recipe.device)
    words = train_words(recipe, data, run, device, fresh)
    environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads)}
    if gpu:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    log = run.with_suffix(".log")
    where = f"GPU {gpu}" if gpu else device
    print(f"{name}: {'goes on' if '--resume' in words else 'begins'} on {where}", flush=True)
    began = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, env=environment)
        running.append(process)
        failed = process.wait() != 0
    seconds = time.monotonic() - began
    if failed:
        last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
        print(
            f"{name}: failed after {seconds:.0f} s: {last[0]} (all of it in {log})",
            file=sys.stderr,
            flush=True,
        )
    else:
        print(f"{name}: trained, {seconds:.0f} s", flush=True)
    return failed


def gather(
    name: str, recipe: Recipe, files: Sequence[Path], held: Sequence[Path], given: argparse.Namespace
) -> Card:
    """Ship a finished run: weights, card, held-out metrics, speed."""
    run = given.runs / name
    card = ship(run, name, files, given.zoo, recipe.best)
    with ExitStack() as stack:
        truth = open_held(stack, card.content["detector"], held, run, files)
        model = _shipped(card)
        key = {
            "weights": [entry["sha256"] for entry in card.content["weights"]],
            "held": [{k: part[k] for k in ("sha256", "showers") if k in part} for part in truth.described],
            "n": given.n,
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


def _shipped(card: Card) -> Generator:
    """Return the generator that the card describes, on the CPU, whatever folder it is in."""
    import torch

    return Generator(card.models(), card.name, str(card.content["particle"]), torch.device("cpu"))


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


def _finished(run: Path) -> bool:
    return RunFolder(run).info.exists() and RunFolder(run).read().get("status") == "finished"


def _device(given: argparse.Namespace, wanted: str) -> str:
    return given.device or wanted


def _gpus(given: argparse.Namespace) -> list[str]:
    """Return the GPUs to use: those named, or all; none when everything is to run on the CPU."""
    if given.device == "cpu":
        return []
    if given.gpus:
        return [gpu.strip() for gpu in given.gpus.split(",")]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the showers to train on")
    parser.add_argument("--held", type=Path, help="folder of further showers to measure with")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the run folders")
    parser.add_argument("--zoo", type=Path, default=ZOO, help="where weights and cards go; the package's own")
    parser.add_argument("--recipes", type=Path, default=HERE / "zoo.toml")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="DATASET/MODEL, DATASET or MODEL"
    )
    parser.add_argument("--jobs", type=int, help="trainings at a time; as many as GPUs")
    parser.add_argument("--gpus", help="numbers of the GPUs, such as 0,1; all of them")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="instead of the recipes' own")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a training")
    parser.add_argument("--fresh", action="store_true", help="train again from nothing")
    parser.add_argument("-n", type=int, help="held-out showers to measure with; all of them")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--train-only", action="store_true", help="leave weights and cards for later")
    only.add_argument("--gather-only", action="store_true", help="weights and cards of finished runs")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
