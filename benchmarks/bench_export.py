"""Export models and time them: torch against ONNX Runtime, OpenVINO and a compiled package, on one thread, in one run.

    python benchmarks/bench_export.py [SOURCE ...] [--showers 64] [--seconds 3] [--no-package]
        [--batches 1 100] [--json F.json]

A source is a shipped model or a run folder; all shipped models when none is named. Times are those of the clock for the graph alone
(noise and conditions are there already), the median of repeats, in ms a shower, for batches of 1 and of 100 or as asked; ratios are to torch in the
same run. Cells are compared with torch's for the same noise and conditions: ``same`` is the part of the cells above 1e-4 MeV that agree
within 1e-4, ``switched`` the part that are empty in one of the two, ``energy`` the largest relative difference of a visible energy. ``own``
is ``same`` of torch against torch with noise that is larger by one unit in its last place: how far the model itself amplifies rounding.
OpenVINO (``pip install openvino``) reads the same graph; without it, or where it cannot, its column is empty.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from caloforge.generate.export import compare, export, load_exported
from caloforge.generate.export.form import CellForm, frozen, random_inputs
from caloforge.generate.timing import hardware_name
from caloforge.zoo import load, shipped_models

OPENVINO = "openvino"
FORMS = (".onnx", OPENVINO, ".pt2")


def median_ms(run: Callable[[], Any], batch: int, seconds: float) -> float:
    """Return the median time of a shower, ms, of at least three runs after a first one."""
    run()
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - started < seconds and len(times) < 200):
        before = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - before) / batch)
    return float(np.median(times))


def measure(
    source: str, folder: Path, showers: int, seconds: float, package: bool, batches: Sequence[int]
) -> dict[str, Any]:
    """Export a source in each form, compare and time it."""
    generator = load(source, device="cpu")
    graph = CellForm(frozen(generator.model)).eval()
    tested = random_inputs(graph, showers, seed=1)
    found: dict[str, Any] = {"model": source}
    with torch.inference_mode():
        reference = np.concatenate([graph(*part)[0].numpy() for part in split(tested.values())])
        moved = {**tested, "noise": tested["noise"].nextafter(torch.tensor(torch.inf))}
        same = compare(reference, np.concatenate([graph(*part)[0].numpy() for part in split(moved.values())]))
        found["own"] = 1.0 - same.beyond / same.cells
    runs: dict[str, Callable[..., Any]] = {
        "torch": lambda inputs: graph(*map(torch.from_numpy, inputs.values()))
    }
    for suffix in (".onnx", ".pt2") if package else (".onnx",):
        before = time.perf_counter()
        made = export(generator, folder / f"{source.replace('/', '-')}{suffix}", force=True)
        run = load_exported(made.path)
        parts = [dict(zip(tested, part, strict=True)) for part in split(tested.values())]
        cells = np.concatenate([run({k: v.numpy() for k, v in part.items()})[0] for part in parts])
        same = compare(reference, cells)
        found[suffix] = {
            "export_s": time.perf_counter() - before,
            "bytes": made.bytes,
            "same": 1.0 - same.beyond / same.cells,
            "switched": same.switched / same.cells,
            "largest": same.largest,
            "energy": same.energy,
        }
        runs[suffix] = run
        if suffix == ".onnx" and (other := openvino_run(made.path)) is not None:
            runs[OPENVINO] = other
    found["ms"] = {}
    for batch in batches:
        inputs = {k: v.numpy() for k, v in random_inputs(graph, batch, seed=2).items()}
        with torch.inference_mode():
            found["ms"][batch] = {
                name: median_ms(partial(run, inputs), batch, seconds) for name, run in runs.items()
            }
    return found


def openvino_run(graph: Path) -> Callable[..., Any] | None:
    """Return a function that runs a graph in OpenVINO on one thread in float32, or none where that cannot be."""
    try:
        from openvino import Core
    except ImportError:
        return None
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    try:
        compiled = Core().compile_model(graph, "CPU", settings)
    except RuntimeError as error:
        print(f"{graph.name}: not in OpenVINO: {' '.join(str(error).split())[:200]}", flush=True)
        return None
    return lambda inputs: compiled(inputs)


def split(parts: Any, size: int = 16) -> Any:
    """Iterate over tensors, some rows at a time."""
    return zip(*(torch.split(part, size) for part in parts), strict=True)


def line(found: dict[str, Any]) -> str:
    """Return a row of the table."""
    cells = [f"`{found['model']}`"]
    for suffix in (".onnx", ".pt2"):
        one = found.get(suffix)
        cells.append(f"{one['bytes'] / 1e6:.1f}" if one else "-")
    for ms in found["ms"].values():
        cells.append(f"{ms['torch']:.3g}")
        cells += [f"{ms[s]:.3g} ({ms['torch'] / ms[s]:.2f})" if s in ms else "-" for s in FORMS]
    onnx = found[".onnx"]
    cells += [
        f"{100 * onnx['same']:.3f}",
        f"{100 * onnx['switched']:.3f}",
        f"{onnx['energy']:.1e}",
        f"{100 * found['own']:.3f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", nargs="*")
    parser.add_argument("--showers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument(
        "--no-package", action="store_true", help="ONNX alone: packages take minutes to compile"
    )
    parser.add_argument(
        "--batches", type=int, nargs=2, default=(1, 100), help="showers that are timed at once"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    head = ["model", "ONNX, MB", "package, MB"]
    for batch in args.batches:
        head += [f"torch, {batch}", f"ONNX, {batch}", f"OpenVINO, {batch}", f"package, {batch}"]
    head += ["same, %", "switched, %", "energy", "own, %"]
    print(f"{hardware_name('cpu')}, one thread; ms a shower (times faster than torch)")
    print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for source in args.sources or shipped_models():
            results.append(
                measure(source, Path(folder), args.showers, args.seconds, not args.no_package, args.batches)
            )
            print(line(results[-1]), flush=True)
            if args.json:
                args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
