"""Load: many showers through generate and validate, many workers on few cores, and disks, folders and systems that fail.

    python benchmarks/load.py [--numbers 20000,50000,100000] [--faults] [-o load.json]

The first part generates samples of growing size (``ild-photon-50gev/vae-gan``, 100 cells, or ``--source``), validates each against
another one of that size, and prints processor time and largest resident memory of each process. From the smallest and the largest size
both are extrapolated in a straight line to ``--to`` showers (10^6), and the line says so; name that size in ``--numbers`` to measure it:
``--numbers 1000000`` on two cores of an AMD EPYC, one of which other work used, gave 235 s of processor time and 326 MB for ``generate`` (a file of 293 MB), 286 s
and 4.2 GB for ``validate`` of 10^6 showers against 10^6.

``--faults`` goes on with things that fail, each in a process with its own file system (``unshare``, Linux; left out with a reason
where that is not allowed): a full disk (a small tmpfs), a read-only folder, a limit on the size of files in place of a quota, a system
without /dev/shm, two processes that write the same output, eight workers on the cores that there are. Each must end with one line on
standard error or do its work, and leave nothing half-written. The exit code is 1 when one does not.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

CALOFORGE = [sys.executable, "-c", "from caloforge.cli.app import main; main()"]
SOURCE, PLACE = "ild-photon-50gev/vae-gan", "atlas-em-barrel"
_IN_MEMORY = """
mkdir -p {place} && mount -t tmpfs -o size={size} tmpfs {place} && cd {place} && {prepare} {command}
code=$?
echo "LEFT $(find . -mindepth 1 \\( -name '*.part' -o -name .lock -o -name '{output}' \\) | tr '\\n' ' ')"
exit $code
"""


def measured(words: Sequence[str]) -> tuple[float, float]:
    """Run a command; return its processor time, s, and its largest resident memory, MB; of the processes it starts that of the largest."""
    process = subprocess.Popen([*CALOFORGE, *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if code := os.waitstatus_to_exitcode(status):
        sys.exit(f"load: caloforge {' '.join(words)} ended with {code}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3


def load(source: str, numbers: Sequence[int], to: int, folder: Path) -> list[dict[str, Any]]:
    """Generate and validate samples of growing size and print each; then the extrapolation."""
    rows: list[dict[str, Any]] = []
    for n in sorted(numbers):
        row: dict[str, Any] = {"showers": n}
        files = [folder / f"{seed}.h5" for seed in (1, 2)]
        for seed, file in enumerate(files, start=1):
            words = ["generate", source, "-n", str(n), "--energy", "50GeV", "--seed", str(seed)]
            row["generate s"], row["generate MB"] = measured([*words, "-o", str(file)])
        row["file MB"] = files[0].stat().st_size / 1e6
        words = ["validate", str(files[0]), str(files[1]), "--quick", "-o", str(folder / f"v{n}")]
        row["validate s"], row["validate MB"] = measured(words)
        for file in files:
            file.unlink()
        rows.append(row)
        print(_text(row), flush=True)
    if len(rows) > 1 and rows[-1]["showers"] < to:
        a, b = rows[0], rows[-1]
        more = (to - b["showers"]) / (b["showers"] - a["showers"])
        row = {key: b[key] + more * max(0.0, b[key] - a[key]) for key in a} | {
            "showers": to,
            "extrapolated": True,
        }
        rows.append(row)
        print(_text(row), flush=True)
    return rows


def _text(row: dict[str, Any]) -> str:
    cells = (f"{key} {value:,.0f}" for key, value in row.items() if key != "extrapolated")
    return ", ".join(cells) + (" (extrapolated in a straight line)" if row.get("extrapolated") else "")


def separate(script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script with its own mounts."""
    words = ["unshare", *([] if os.getuid() == 0 else ["-r"]), "-m", "sh", "-c", script]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def faults(folder: Path) -> list[dict[str, Any]]:
    """Run what must fail in one line, or succeed all the same; print and return what each did."""
    data, other, run = folder / "data.h5", folder / "other.h5", folder / "run"
    small = [
        word
        for value in ("epochs=2", "hidden=[512,512]", "latent=2", "checkpoint_epochs=1")
        for word in ("--set", value)
    ]
    simulate = ["simulate", PLACE, "--engine", "gflash", "-n"]
    train, study = ["train", "vae", str(data)], ["study", "diversity", str(other), str(data)]
    for words in (
        [*simulate, "400", "--seed", "1", "-o", str(data)], [*simulate, "400", "--seed", "2", "-o", str(other)],
        [*train, "-o", str(run), *small[2:], "--set", "epochs=1"],
    ):  # fmt: skip
        measured(words)
    generate = ["generate", str(run), "-n", "4000", "--energy", "30GeV"]
    validate = ["validate", str(data), str(other), "--quick"]
    full = [
        ("simulate", [*simulate, "3000", "-o", "a.h5"], "a.h5"), ("generate", [*generate, "-o", "a.h5"], "a.h5"),
        ("train", [*train, *small, "-o", "out"], "weights*"), ("validate", [*validate, "-o", "out"], "report.html"),
        ("study", [*study, "-o", "out"], "report.html"),
    ]  # fmt: skip
    rows: list[dict[str, Any]] = []
    for name, words, output in full:
        for kind, size, prepare in (
            ("full disk", "40k", ""), ("read-only folder", "9m", "mount -o remount,ro . &&"),
            ("limit of file size", "9m", "ulimit -f 16 &&"),
        ):  # fmt: skip
            command = shlex.join([*CALOFORGE, *words])
            script = _IN_MEMORY.format(
                place=folder / "small", size=size, prepare=prepare, command=command, output=output
            )
            done = separate(script)
            if "mount" in done.stderr and "denied" in done.stderr:
                print(f"left out, no mounts here: {done.stderr.strip()}")
                return rows
            rows.append(_verdict(f"{kind}, {name}", done, (1, 2)))
    for name, words, _ in full:
        place = tempfile.mkdtemp(dir=folder)
        script = f"mount -t tmpfs -o ro,size=4k tmpfs /dev/shm && cd {place} && {shlex.join([*CALOFORGE, *words, '--seed', '5'])}"
        rows.append(_verdict(f"no /dev/shm, {name}", separate(script), (0,)))
    rows += [_two_writers(folder, generate), _workers(folder, simulate)]
    return rows


def _verdict(name: str, done: subprocess.CompletedProcess[str], codes: tuple[int, ...]) -> dict[str, Any]:
    """Print and return what a process did, and whether that is right."""
    said = [line for line in done.stderr.splitlines() if not line.startswith("caloforge: warning:")]
    left = [line.removeprefix("LEFT").strip() for line in done.stdout.splitlines() if line.startswith("LEFT")]
    good = done.returncode in codes and not any(left) and (len(said) == 1 if done.returncode else True)
    row = {
        "what": name,
        "code": done.returncode,
        "said": said[-1:] if good else said[-3:],
        "left": left,
        "right": good,
    }
    print(
        f"{'right' if good else 'WRONG'}: {name}: exit {done.returncode} {' '.join([*said[-3:], *left])}",
        flush=True,
    )
    return row


def _two_writers(folder: Path, generate: Sequence[str]) -> dict[str, Any]:
    """Start two processes that write the same output; one is to win and the other to say so."""
    file = folder / "twice.h5"
    both = [
        subprocess.Popen([*CALOFORGE, *generate, "--seed", seed, "-o", str(file)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for seed in "34"
    ]  # fmt: skip
    said = [process.communicate()[1].strip() for process in both]
    codes = [process.returncode for process in both]
    with h5py.File(file) as stored:
        good = sorted(codes) == [0, 2] and stored.attrs["seed"] == 3 + codes.index(0)
    row = {"what": "two writers of one output", "code": codes, "said": said, "right": bool(good)}
    print(f"{'right' if good else 'WRONG'}: two writers: exits {codes} {said}", flush=True)
    return row


def _workers(folder: Path, simulate: Sequence[str]) -> dict[str, Any]:
    """Simulate with eight workers and with one; the showers are to be the same."""
    found, seconds = [], []
    for workers in ("1", "8"):
        file = folder / f"w{workers}.h5"
        began = time.monotonic()
        measured([*simulate, "9000", "--workers", workers, "-o", str(file)])
        seconds.append(time.monotonic() - began)
        with h5py.File(file) as stored:
            found.append(stored["showers"][()])
    good = bool(np.array_equal(*found))
    print(
        f"{'right' if good else 'WRONG'}: 8 workers on {os.cpu_count()} cores {seconds[1]:.1f} s, one {seconds[0]:.1f} s, the same showers"
    )
    return {"what": "8 workers", "seconds": seconds, "right": good}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print what is wanted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--numbers",
        default="20000,50000,100000",
        help="sizes of the samples, separated by commas; empty: none",
    )
    parser.add_argument("--to", type=int, default=1_000_000, help="size to extrapolate to")
    parser.add_argument("--source", default=SOURCE, help="model")
    parser.add_argument("--faults", action="store_true", help="what fails, too")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the results")
    wanted = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="load-") as scratch:
        numbers = [int(number) for number in wanted.numbers.split(",") if number]
        rows = load(wanted.source, numbers, wanted.to, Path(scratch))
        failing = faults(Path(scratch)) if wanted.faults else []
    if wanted.output is not None:
        wanted.output.write_text(json.dumps({"load": rows, "faults": failing}, indent=1) + "\n")
    return int(not all(row["right"] for row in failing))


if __name__ == "__main__":
    sys.exit(main())
