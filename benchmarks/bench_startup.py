"""Start-up: how long ``caloforge --help`` takes beside a Python that does nothing.

    python benchmarks/bench_startup.py [-n 20]

The two are run in turn, so that a busy machine slows both; the median of each is printed, and the modules that
took longest to import.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

NOTHING = [sys.executable, "-c", "pass"]
HELP = [sys.executable, "-c", "from caloforge.cli.app import main; main()", "--help"]
IMPORTS = [sys.executable, "-X", "importtime", "-c", "import caloforge.cli.app"]


def seconds(command: list[str]) -> float:
    """Return how long a command takes, s."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def slowest(count: int = 5) -> list[tuple[float, str]]:
    """Return the imports that took longest by themselves, in ms."""
    text = subprocess.run(IMPORTS, check=True, capture_output=True, text=True).stderr
    rows = [line.removeprefix("import time:").split("|") for line in text.splitlines()[1:]]
    own = [(int(row[0]) / 1000, row[2].strip()) for row in rows if len(row) == 3 and row[0].strip().isdigit()]
    return sorted(own, reverse=True)[:count]


def main() -> None:
    """Print both medians and their difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=20, help="runs of each")
    count = parser.parse_args().n
    pairs = [(seconds(NOTHING), seconds(HELP)) for _ in range(count)]
    nothing, shown = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"python that does nothing  {1e3 * nothing:6.0f} ms (median of {count})")
    print(f"caloforge --help          {1e3 * shown:6.0f} ms, {1e3 * (shown - nothing):.0f} ms more")
    for milliseconds, name in slowest():
        print(f"  {milliseconds:6.1f} ms  {name}")


if __name__ == "__main__":
    main()
