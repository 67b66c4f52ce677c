"""Time and memory of the same commands in two checkouts of the package, alternating, so that a change of the code can be judged.

python benchmarks/compare_checkouts.py OLD [NEW] [--only validate train generate help] [--showers 10000] [--repeats 2]

OLD and NEW are folders of checkouts; NEW is this one unless named. Commands: `validate` on atlas showers, one epoch of `flow-matching` and of
`conv3d-gan`, `generate` for each shipped model, and `caloforge --help`. For each: processor time and peak memory, the smaller of the
repeats, and the ratio new over old.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parents[1]
START = "from caloforge.cli.app import main; main()"
GENERATED = {
    "atlas-photon/flow-matching": (1000, ["--energy", "1.024-262.144GeV:log2"]),
    "atlas-photon/vae": (10_000, ["--energy", "1.024-262.144GeV:log2"]),
    "atlas-photon/wgan-gp": (10_000, ["--energy", "1.024-262.144GeV:log2"]),
    "clic-electron/conv2d-gan": (500, ["--energy", "2-500GeV"]),
    "clic-electron/conv3d-gan": (200, ["--energy", "2-500GeV"]),
    "clic-electron/flow-matching": (200, ["--energy", "2-500GeV"]),
    "clic-electron-wide/flow-matching": (100, ["--energy", "97.6-102.4GeV", "--theta", "88-92"]),
    "ild-photon-50gev/flow-matching": (200, ["--energy", "50GeV"]),
    "ild-photon-50gev/vae-gan": (10_000, ["--energy", "50GeV"]),
    "ild-photon-angled/bib-ae": (200, ["--energy", "10-100GeV", "--theta", "30-90"]),
    "ild-photon-angled/flow-matching": (200, ["--energy", "10-100GeV", "--theta", "30-90"]),
}
"""Showers and conditions of each shipped model."""


def run(checkout: Path, words: list[str], scratch: Path) -> tuple[float, float]:
    """Run a command of the package in a checkout; return processor time in s and peak memory in MB."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    with (scratch / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", START, *words], env=environment, cwd=scratch, stdout=log, stderr=log
        )
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        print((scratch / "log").read_text()[-2000:], file=sys.stderr)
        msg = f"{checkout}: caloforge {' '.join(words)} failed"
        raise SystemExit(msg)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024.0


def commands(only: list[str], showers: int, checkout: Path, scratch: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield a name and a command line; the showers of validation and training are generated first."""
    if "help" in only:
        yield "--help", ["--help"]
    if "generate" in only:
        for name, (n, conditions) in GENERATED.items():
            yield (
                f"generate {name}, {n} showers",
                [
                    "generate", name, "-n", str(n), *conditions, "--seed", "5", "--device", "cpu",
                    "-o", "showers.h5", "--force",
                ],
            )  # fmt: skip
    if "train" in only:
        for name, model, n, settings in (
            ("atlas-photon/vae", "flow-matching", 4000, ["summary_epochs=1", "epochs=1"]),
            ("clic-electron/conv2d-gan", "conv3d-gan", 500, ["epochs=1"]),
        ):
            path = scratch / f"train-{model}.h5"
            words = [
                "generate", name, "-n", str(n), *GENERATED[name][1], "--seed", "3", "--device", "cpu", "-o", str(path)
            ]  # fmt: skip
            run(checkout, words, scratch)
            sets = [part for one in settings for part in ("--set", one)]
            yield (
                f"train {model}, {n} showers, one epoch",
                ["train", model, str(path), "-o", "run", "--force", "--device", "cpu", *sets],
            )
    if "validate" in only:
        files = []
        for seed, name in ((1, "atlas-photon/flow-matching"), (2, "atlas-photon/vae")):
            files.append(scratch / f"validate-{seed}.h5")
            words = ["generate", name, "-n", str(showers), *GENERATED[name][1], "--seed", str(seed)]
            run(checkout, [*words, "--device", "cpu", "-o", str(files[-1])], scratch)
        yield (
            f"validate {showers} v {showers} atlas showers",
            ["validate", *map(str, files), "-o", "report", "--force", "--device", "cpu"],
        )


def main() -> None:
    """Read the arguments, run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path, nargs="?", default=HERE)
    every = ["help", "generate", "train", "validate"]
    parser.add_argument("--only", nargs="+", choices=every, default=every)
    parser.add_argument("--showers", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    checkouts = {"old": options.old.resolve(), "new": options.new.resolve()}
    print(f"{'':60s} {'old s':>8s} {'new s':>8s} {'ratio':>6s} {'old MB':>8s} {'new MB':>8s}")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for name, words in commands(options.only, options.showers, checkouts["old"], scratch):
            best: dict[str, tuple[float, float]] = {}
            for _ in range(options.repeats):
                for side, checkout in checkouts.items():
                    found = run(checkout, words, scratch)
                    best[side] = tuple(map(min, found, best.get(side, found)))  # type: ignore[assignment]
                    time.sleep(0.1)
            (old, old_mb), (new, new_mb) = best["old"], best["new"]
            print(
                f"{name:60s} {old:8.2f} {new:8.2f} {new / old:6.2f} {old_mb:8.0f} {new_mb:8.0f}", flush=True
            )


if __name__ == "__main__":
    if len(sys.argv) < 2:
        print("compare_checkouts: names no old checkout; expected a folder", file=sys.stderr)
        raise SystemExit(2)
    main()
