"""Train on 1, 2, 4 ... devices and print the showers a second, with the scaling efficiency, in one run.

    python benchmarks/bench_devices.py SHOWERS.h5 [SHOWERS.h5 ...] [--device cuda] [--devices 1 2 4] [--batch 256 2048] [--epochs 8]

Each training is ``caloforge train flow-matching --devices K`` with the same global batch; its speed is that of the median epoch of the
cells, without the start of the processes. The efficiency is the speed over K times that of one device. Beside it stands the mean loss of the
last epoch, which is to agree with that of one device within the spread of seeds.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

from caloforge.train import RunFolder

COMMAND = "from caloforge.cli.app import main; raise SystemExit(main())"


def trained(
    data: list[str], folder: Path, device: str, devices: int, batch: int, epochs: int, changes: list[str]
) -> RunFolder:
    """Return the run of a short training."""
    settings = [
        "summary_epochs=1", f"epochs={epochs}", f"batch_size={batch}", "calibration=0",
        "train.validation=0.02", "train.validate_every=1000", *changes,
    ]  # fmt: skip
    words = [
        "train",
        "flow-matching",
        *data,
        "-o",
        str(folder),
        "--device",
        device,
        "--devices",
        str(devices),
    ]
    for one in settings:
        words += ["--set", one]
    subprocess.run([sys.executable, "-c", COMMAND, *words], check=True, stdout=subprocess.DEVNULL)
    return RunFolder(folder)


def last_loss(run: RunFolder) -> float:
    """Return the mean training loss of the last epoch of the cells."""
    with run.log.open() as file:
        rows = [row for row in csv.DictReader(file) if row["stage"] == row["name"] == "cells"]
    return float(rows[-1]["value"])


def main(words: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", help="files of showers")
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--batch", type=int, nargs="+", default=[256, 2048], help="global batches")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--set", action="append", default=[], dest="changes", help="settings of the training")
    chosen = parser.parse_args(words)
    print("devices   batch   showers/s   efficiency   last loss")
    with tempfile.TemporaryDirectory() as folder:
        for batch in chosen.batch:
            one = 0.0
            for devices in chosen.devices:
                place = Path(folder) / f"{devices}-{batch}"
                run = trained(
                    chosen.data, place, chosen.device, devices, batch, chosen.epochs, chosen.changes
                )
                info = run.read()
                size = min(batch, info["train_showers"])
                used = info["train_showers"] // size * size
                speed = used / info["stages"]["0/cells"]["epoch_seconds"]
                one = one or speed / devices
                print(
                    f"{devices:7d} {batch:7d} {speed:11.0f} {speed / devices / one:12.2f} {last_loss(run):11.5f}",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
