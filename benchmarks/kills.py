"""Kills: commands that end in the middle, and what the same command makes of it.

    python benchmarks/kills.py [--kills 100] [--terms 20] [--operations 1000] [--only simulate,train] [-o kills.json]

Each command (simulate, train, generate, validate, study) runs uninterrupted twice: for its result, and to see which of its files are the
same each time. Then it is killed (SIGKILL) at random moments, ended (SIGTERM) at random moments, and killed before each file operation
under its output (opening for writing, renaming, linking, removing, making folders; an audit hook counts them). After each, the same
command runs again (``train`` with ``--resume``), and its result is compared with the uninterrupted one, byte for byte but for times and
dates. What counts:

- same: the second run ends well, with the same result;
- complete: the first had finished, and the second says that the output exists, which is the result;
- different: the result differs; torn: something else than the result lay under the output's name after the kill;
- lost: the second run refuses or fails, without the result;
- left: files beside the result that the uninterrupted run does not leave;
- outlived: processes of the killed command that were there 5 s later.

Each run is a fork of a process that has imported the package, so that its start takes no time; processes that it starts itself are as
always. The exit code is 1 when anything is different, torn, lost, left or outlived.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import matplotlib.pyplot
import mplhep  # noqa: F401 - imported once, for all forks
import numpy as np
import plotly.graph_objects  # noqa: F401
import sklearn.ensemble  # noqa: F401
import torch

import caloforge.benchmark
import caloforge.studies.diversity
import caloforge.studies.run
import caloforge.train
import caloforge.validate.driver
import caloforge.zoo.closing  # noqa: F401
from caloforge.cli.app import main as caloforge_main

VOLATILE = {
    "command", "cpu_seconds", "cpu_seconds_per_shower", "date", "epoch_seconds", "file", "output", "seconds", "shower_seconds",
    "wall_seconds",
}  # fmt: skip
"""Keys of JSON and attributes of HDF5 whose values are times, dates or paths."""
EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
BAD = ("different", "torn", "lost", "left", "outlived")


@dataclass
class Command:
    """A command line, and how the same command goes on."""

    name: str
    words: list[str]  # without the output
    output: str  # name of the output
    again: Sequence[str] = ()  # added when it is repeated and its output folder is there
    result: dict[str, str] = field(
        default_factory=dict
    )  # hashes of the uninterrupted result, by relative name
    unlike: set[str] = field(default_factory=set)  # files that differ from one uninterrupted run to the next
    seconds: float = 0.0  # of the uninterrupted run

    def line(self, again: bool = False) -> list[str]:
        """The arguments; the output is a name in the folder in which the command runs."""
        return [*self.words, "-o", self.output, *(self.again if again else ())]


def run(words: Sequence[str], log: Path, folder: Path, first: Callable[[], None] | None = None) -> int:
    """Start a command in a fork, in a folder, which leads its own session; return its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.argv = ["caloforge", *words]
        if first is not None:
            first()
        caloforge_main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(bool(error.code))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int) -> int:
    """Return the exit code of a process, minus the number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def others(session: int) -> list[int]:
    """Return the live processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def outlived(session: int, seconds: float = 5.0) -> bool:
    """Whether processes of a session are there after some seconds; they are then killed."""
    end = time.monotonic() + seconds
    while (left := others(session)) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return bool(left)


def _plain(value: Any) -> Any:
    """Return JSON values without those that differ each time."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key not in VOLATILE}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _hash(path: Path) -> str:
    """Return the hash of a file's content, without times and dates."""
    digest = hashlib.sha256()
    if path.suffix == ".json":
        digest.update(json.dumps(_plain(json.loads(path.read_text())), sort_keys=True).encode())
    elif path.suffix == ".h5":
        with h5py.File(path) as file:
            for name, value in sorted(file.attrs.items()):
                digest.update(b"" if name in VOLATILE else f"{name}={value!r}".encode())

            def add(name: str, item: Any) -> None:
                if isinstance(item, h5py.Dataset):
                    digest.update(name.encode() + np.ascontiguousarray(item[()]).tobytes())

            file.visititems(add)
    else:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def hashes(folder: Path) -> dict[str, str]:
    """Return the hashes of all files under a folder by relative name; of empty folders too."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file():
            try:
                found[name] = _hash(path)
            except (OSError, ValueError) as error:
                found[name] = f"unreadable: {error}"
        elif not any(path.iterdir()):
            found[name + "/"] = ""
    return found


def settle(command: Command, folder: Path) -> None:
    """Run a command twice without an interruption; keep its result and time."""
    for number in range(2):
        place = folder / f"{command.name}-{number}"
        place.mkdir()
        began = time.monotonic()
        code = wait(run(command.line(), folder / "log", place))
        command.seconds = time.monotonic() - began
        if code:
            sys.exit(f"kills: {command.name} failed with {code}:\n{(folder / 'log').read_text()[-2000:]}")
        found = hashes(place)
        if number:
            command.unlike = {n for n in {*found, *command.result} if found.get(n) != command.result.get(n)}
        command.result = found
        shutil.rmtree(place)


def judge(command: Command, place: Path, log: Path) -> str:
    """Run the same command again and say what became of the result."""
    code = wait(run(command.line((place / command.output).exists()), log, place))
    found = hashes(place)
    missing = command.result.keys() - found.keys()
    if code not in (0, 2) or missing:
        return f"lost (exit {code}: {log.read_text().splitlines()[-1:]})"
    wrong = [n for n in command.result if found[n] != command.result[n] and n not in command.unlike]
    if wrong:
        return f"different ({', '.join(wrong[:5])})"
    return "same" if code == 0 else "complete"


def torn(command: Command, place: Path) -> bool:
    """Whether a file that is not the result lies under the name of an output that is a file."""
    name = command.output
    return (place / name).is_file() and hashes(place)[name] != command.result[name]


def attempt(
    command: Command, folder: Path, moment: float | None, operation: int = 0, blow: int = signal.SIGKILL
) -> dict[str, Any]:
    """End a command at a moment, s, or before a file operation; then run it again.

    Returns:
        ``outcome``, and what was ``torn``, ``left`` or ``outlived``; ``ended`` is False when the command was faster.
    """
    place = Path(tempfile.mkdtemp(dir=folder))
    log = place.with_suffix(".log")
    pid = run(command.line(), log, place, watching(place, before(operation)) if operation else None)
    if moment is not None:
        time.sleep(moment)
        os.kill(pid, blow)
    code = wait(pid)
    seen: dict[str, Any] = {"command": command.name, "moment": moment, "operation": operation, "code": code}
    seen["ended"] = code == -signal.SIGKILL if blow == signal.SIGKILL else code == 128 + blow
    seen["outlived"] = outlived(pid)
    seen["torn"] = torn(command, place)
    if blow == signal.SIGTERM and seen["ended"]:
        seen["uncleaned"] = [n for n in hashes(place) if n.endswith((".part", ".lock"))]
    seen["outcome"] = judge(command, place, log)
    seen["left"] = sorted(hashes(place).keys() - command.result.keys())
    shutil.rmtree(place)
    log.unlink()
    return seen


def watching(place: Path, each: Callable[[int], None]) -> Callable[[], None]:
    """Return a function that has ``each`` called before every file operation under a folder, with its number from 1."""

    def install() -> None:
        count, root = 0, str(place) + os.sep

        def hook(event: str, args: tuple[Any, ...]) -> None:
            nonlocal count
            if event == "open":
                known = isinstance(args[2], int) and bool(args[2] & WRITING)
            else:
                known = event in EVENTS
            if not (known and isinstance(args[0], str | bytes | os.PathLike)):
                return
            if os.path.abspath(os.fsdecode(args[0])).startswith(root):
                count += 1
                each(count)

        sys.addaudithook(hook)

    return install


def before(operation: int) -> Callable[[int], None]:
    """Return a function that kills this process when it is called with a number."""
    return lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == operation else None


def prepare(folder: Path, scale: float = 1.0) -> list[Command]:
    """Make the inputs, and return the commands; ``scale`` the numbers of showers that they make."""
    many, more = (str(int(scale * n)) for n in (1200, 10_000))
    place = "atlas-em-barrel"
    data, other, model = folder / "data.h5", folder / "other.h5", folder / "model"
    small = [
        word for value in ("hidden=[16]", "latent=2", "checkpoint_epochs=1") for word in ("--set", value)
    ]
    for words in (
        ["simulate", place, "-n", "400", "--engine", "gflash", "--seed", "2", "-o", str(data)],
        ["simulate", place, "-n", "400", "--engine", "gflash", "--seed", "3", "-o", str(other)],
        ["train", "vae", str(data), "-o", str(model), "--set", "epochs=1", *small],
    ):
        if code := wait(run(words, folder / "log", folder)):
            sys.exit(f"kills: {' '.join(words)} failed with {code}: {(folder / 'log').read_text()[-2000:]}")
    gflash = ["--engine", "gflash", "--seed", "1"]
    several = ["--set", "epochs=3", "--set", "trainings=3"]
    return [
        Command("simulate", ["simulate", place, "-n", many, *gflash], "a.h5"),
        Command("train", ["train", "vae", str(data), *several, *small], "run", ("--resume",)),
        Command("generate", ["generate", str(model), "-n", more, "--energy", "30GeV"], "b.h5"),
        Command("study", ["study", "diversity", str(other), str(model)], "study"),
        Command("validate", ["validate", str(data), str(other), "--quick"], "report"),
    ]  # fmt: skip


def operations(command: Command, folder: Path, most: int) -> list[dict[str, Any]]:
    """Kill a command before each of its first file operations, or before ``most`` of them, evenly spread."""
    count = folder / "count"
    place = Path(tempfile.mkdtemp(dir=folder))

    def note(number: int) -> None:
        descriptor = os.open(count, os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, b"%d" % number)
        os.close(descriptor)

    wait(run(command.line(), folder / "log", place, watching(place, note)))
    total = int(count.read_text())
    count.unlink()
    shutil.rmtree(place)
    chosen = sorted(
        {1 + round(k * (total - 1) / max(1, min(most, total) - 1)) for k in range(min(most, total))}
    )
    return [attempt(command, folder, None, number) | {"of": total} for number in chosen]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--kills", type=int, default=100, help="SIGKILLs at random moments, of all commands together"
    )
    parser.add_argument("--terms", type=int, default=20, help="SIGTERMs at random moments")
    parser.add_argument(
        "--operations", type=int, default=1000, help="most file operations of a command to kill before"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="numbers of showers against the usual ones")
    parser.add_argument("--only", default="", help="commands, separated by commas")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for every attempt")
    wanted = parser.parse_args(arguments)
    torch.set_num_threads(1)
    matplotlib.pyplot.switch_backend("agg")
    rng, found = random.Random(wanted.seed), []
    with tempfile.TemporaryDirectory(prefix="kills-") as scratch:
        folder = Path(scratch)
        commands = prepare(folder, wanted.scale)
        if wanted.only:
            commands = [command for command in commands if command.name in wanted.only.split(",")]
        for command in commands:
            settle(command, folder)
            print(
                f"{command.name}: {command.seconds:.1f} s, {len(command.result)} files, not the same each time: {sorted(command.unlike) or 'none'}",
                flush=True,
            )
        # as many of each command as its time allows, so that the slow ones do not take it all
        shares = [1.0 / command.seconds**0.5 for command in commands]
        for kind, number, blow in (
            ("kill", wanted.kills, signal.SIGKILL),
            ("term", wanted.terms, signal.SIGTERM),
        ):
            for command, share in zip(commands, shares, strict=True):
                rows = []
                for _ in range(round(number * share / sum(shares)) or bool(number)):
                    rows.append(attempt(command, folder, rng.uniform(0.0, command.seconds), 0, blow))
                found += _said(rows, kind, command)
        for command in commands if wanted.operations else ():
            found += _said(operations(command, folder, wanted.operations), "operation", command)
    if wanted.output is not None:
        wanted.output.write_text(json.dumps(found, indent=1) + "\n")
    total = Counter[str]()
    for kind in ("kill", "term", "operation"):
        total += _line([row for row in found if row["kind"] == kind], f"all, {kind}")
    return int(any(total[name] for name in BAD))


def _said(rows: list[dict[str, Any]], kind: str, command: Command) -> list[dict[str, Any]]:
    """Print the counts of one command, and what went wrong."""
    rows = [row | {"kind": kind} for row in rows]
    _line(rows, f"{command.name}, {kind}")
    for row in rows:
        if (
            row["left"]
            or row["torn"]
            or row["outlived"]
            or row["outcome"] not in ("same", "complete")
            or row.get("uncleaned")
        ):
            print("   ", {key: value for key, value in row.items() if value}, flush=True)
    return rows


def _line(rows: Sequence[dict[str, Any]], title: str) -> Counter[str]:
    """Print and return the counts of some attempts."""
    counts = Counter(row["outcome"].partition(" ")[0] for row in rows)
    counts += Counter({name: sum(bool(row[name]) for row in rows) for name in ("torn", "left", "outlived")})
    ended = sum(row["ended"] for row in rows)
    cells = (f"{name} {counts[name]}" for name in ("same", "complete", *BAD))
    if rows:
        print(f"{title:22} {len(rows)} runs, {ended} ended so: {', '.join(cells)}", flush=True)
    return counts


if __name__ == "__main__":
    sys.exit(main())
