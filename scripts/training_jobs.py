"""Trainings side by side: each in a process of its own, its output in a log, so many at a time over the GPUs."""

from __future__ import annotations

import argparse
import os
import queue
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from zoo_recipes import Recipe, prepared, train_words

from caloforge.errors import CaloforgeError
from caloforge.train import RunFolder

__all__ = ["add_job_options", "device_of", "finished", "gpus_of", "train_side_by_side"]


def train_side_by_side(
    recipes: Mapping[str, Recipe], files: Mapping[str, list[Path]], given: argparse.Namespace
) -> list[str]:
    """Train all recipes, ``jobs`` at a time over the GPUs; return the names of those that failed."""
    gpus = gpus_of(given)
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
    if recipe.first:
        before = f"{name}-first"
        if not finished(given.runs / before) and _train(
            before, recipe.first_recipe(), files, gpu, given, running
        ):
            return True
        recipe = recipe.begun(given.runs / before)
    run.parent.mkdir(parents=True, exist_ok=True)
    data = prepared(recipe, files, given.runs / "images")
    fresh = given.fresh or (run.is_dir() and not (run / "run.json").exists())
    device = device_of(given, recipe.device)
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


def finished(run: Path) -> bool:
    """Return whether a folder holds a finished run."""
    return RunFolder(run).info.exists() and RunFolder(run).read().get("status") == "finished"


def device_of(given: argparse.Namespace, wanted: str) -> str:
    """Return the device that was asked for, or else the recipe's own."""
    return given.device or wanted


def gpus_of(given: argparse.Namespace) -> list[str]:
    """Return the GPUs to use: those named, or all; none when everything is to run on the CPU."""
    if given.device == "cpu":
        return []
    if given.gpus:
        return [gpu.strip() for gpu in given.gpus.split(",")]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where trainings run, and how many at a time."""
    parser.add_argument("--jobs", type=int, help="at a time; as many as GPUs")
    parser.add_argument("--gpus", help="numbers of the GPUs, such as 0,1; all of them")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="instead of the recipes' own")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a training")
    parser.add_argument("--fresh", action="store_true", help="train again from nothing")
