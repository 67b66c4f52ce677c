"""CPU time and memory of ``caloforge validate`` by part, beside one reading of the same files.

    python benchmarks/bench_validate.py REFERENCE.h5 GENERATED.h5 [-n 5000] [--quick] [--threads 1]

One run of the whole command: opening and checking the files, the observables, each metric, and the report with the
processes that draw its figures. The base of the ratios is what no comparison can do without, one pass that reads all
showers of both files. Memory is the resident size, looked at every 20 ms, of the process that measures; that of a process
which draws figures is printed apart. Limits of the project: 180 s of CPU time for 5,000 against 5,000 showers of
``atlas-em-barrel`` and 480 s for 27,000 cells. On busy cores CPU times rise too: look at the ratios.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import caloforge.validate.driver as reading_room
import caloforge.validate.metrics as metrics_room
from caloforge.showers import open_showers
from caloforge.validate.driver import validate
from caloforge.validate.metrics import Settings

_INTERVAL = 0.02  # s
_MEBIBYTE = 2**20


def cpu_seconds() -> tuple[float, float]:
    """Return the CPU time of this process and of its ended children."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime


def resident() -> float:
    """Return the resident memory of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / _MEBIBYTE


class Meter:
    """CPU time and largest memory of named parts; one part at a time, an inner part interrupts the outer one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.memory: dict[str, float] = {}
        self._part, self._since = "opening and checking", cpu_seconds()[0]
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Meter:
        """Start to look at the memory."""
        self._watch.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End the last part."""
        self.switch("")
        self._ended.set()
        self._watch.join()

    def _look(self) -> None:
        while not self._ended.wait(_INTERVAL):
            part = self._part
            self.memory[part] = max(self.memory.get(part, 0.0), resident())

    def switch(self, part: str) -> str:
        """Begin a part and return the one that ends."""
        now, before = cpu_seconds()[0], self._part
        self.seconds[before] = self.seconds.get(before, 0.0) + now - self._since
        self.memory[before] = max(self.memory.get(before, 0.0), resident())
        self._part, self._since = part, now
        return before

    @contextmanager
    def inside(self, part: str) -> Iterator[None]:
        """Count a block as a part, then go on with the part before."""
        outer = self.switch(part)
        try:
            yield
        finally:
            self.switch(outer)


def watched(meter: Meter) -> None:
    """Switch the meter to the part that a comparison is in: the read of each sample, then metric by metric."""
    read: Callable[..., Any] = reading_room.read_samples
    compute: Callable[..., Any] = metrics_room.compute_metrics

    def observed(*arguments: Any, **options: Any) -> Any:
        with meter.inside("reading, observables"):
            return read(*arguments, **options)

    def computed(reference: Any, generated: Any, settings: Any) -> Any:
        def told(name: str, done: int, total: int) -> None:
            meter.switch(name or "report")

        return compute(reference, generated, settings, progress=told)

    reading_room.read_samples = observed
    metrics_room.compute_metrics = computed


def main() -> None:
    """Run the chosen parts and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reference", type=Path)
    parser.add_argument("generated", type=Path)
    parser.add_argument("-n", type=int, help="first showers of each file; all by default")
    parser.add_argument("--quick", action="store_true", help="as caloforge validate --quick")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    settings = Settings(quick=options.quick)
    with Meter() as meter, tempfile.TemporaryDirectory() as folder:
        with open_showers(options.reference) as first, open_showers(options.generated) as second:
            sources: list[Any] = [first, second]
            if options.n is not None:
                sources = [source[: options.n] for source in sources]
            with meter.inside("reading"):
                for source in (first, second):
                    left = min(len(source), options.n or len(source))
                    for chunk in source.chunks():
                        left -= len(chunk)
                        if left <= 0:
                            break
            sizes = [len(source) for source in sources]
            watched(meter)
            children = cpu_seconds()[1]
            validate(*sources, output=Path(folder) / "report", settings=settings, allow_seen=True)
        drawing = cpu_seconds()[1] - children
    base = meter.seconds.pop("reading")
    meter.seconds.pop("", None)
    total = sum(meter.seconds.values()) + drawing
    print(f"{sizes[0]} against {sizes[1]} showers of {sources[0].detector.name}")
    print(f"{'part':28s} {'CPU s':>8s} {'/ reading':>10s} {'peak MiB':>9s}")
    print(f"{'reading both files once':28s} {base:8.1f} {1.0:10.1f} {meter.memory['reading']:9.0f}")
    for part, seconds in sorted(meter.seconds.items(), key=lambda item: -item[1]):
        print(f"{part:28s} {seconds:8.1f} {seconds / base:10.1f} {meter.memory[part]:9.0f}")
    drawn = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{'processes that draw':28s} {drawing:8.1f} {drawing / base:10.1f} {drawn:9.0f}")
    print(f"{'all':28s} {total:8.1f} {total / base:10.1f} {max(meter.memory.values()):9.0f}")


if __name__ == "__main__":
    main()
