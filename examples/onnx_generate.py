"""Generate showers with an exported model: ONNX Runtime and NumPy alone.

    caloforge export atlas-photon/vae -o vae.onnx
    python examples/onnx_generate.py vae.onnx showers.npz -n 1000 --set incident_energy=65536 --set alignment_phi=1 --seed 1

The file says what its inputs are (``session.get_modelmeta()``). Energies are MeV, angles degrees. A condition that is left out takes
the middle of its range. A graph cannot raise: conditions outside the training's range are found by its second output.
"""

import argparse
import json
import sys

import numpy as np
import onnxruntime

BATCH = 100


def condition_rows(conditions, wanted, n):
    """Return conditions (n, C) float32; each of them the same for all showers."""
    rows = np.zeros((n, sum(one["columns"] for one in conditions)), np.float32)
    unknown = set(wanted) - {one["name"] for one in conditions}
    if unknown:
        known = ", ".join(one["name"] for one in conditions)
        raise SystemExit(f"error: the model has no condition '{min(unknown)}'; known: {known}")
    for one in conditions:
        columns = slice(one["first_column"], one["first_column"] + one["columns"])
        middle = (np.array(one["low"]) + np.array(one["high"])) / 2
        rows[:, columns] = wanted.get(one["name"], middle if one["unit"] else np.floor(middle))
    return rows


def generate(session, rows, seed):
    """Return cells (n, n_cells), MeV, and whether the conditions are in range (n,)."""
    size = session.get_inputs()[0].shape[1]
    noise = np.random.default_rng(seed).standard_normal((len(rows), size), np.float32)
    parts = [
        session.run(None, {"noise": noise[k : k + BATCH], "conditions": rows[k : k + BATCH]})
        for k in range(0, len(rows), BATCH)
    ]
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def main():
    """Read the command line, generate, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("output", help="file .npz with cells, conditions and what the model says of itself")
    parser.add_argument("-n", type=int, default=100)
    parser.add_argument("--set", action="append", default=[], metavar="CONDITION=VALUE")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(args.model, options, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    if facts.get("form") != "cells":
        raise SystemExit(f"error: {args.model} has the form '{facts.get('form')}'; expected 'cells'")
    conditions = json.loads(facts["conditions"])
    wanted = {name: float(value) for name, _, value in (one.partition("=") for one in args.set)}
    rows = condition_rows(conditions, wanted, args.n)
    cells, in_range = generate(session, rows, args.seed)
    if not in_range.all():
        ranges = ", ".join(f"{one['name']} {one['low']} to {one['high']} {one['unit']}" for one in conditions)
        print(
            f"error: {int((~in_range).sum())} showers are outside the training's range: {ranges}",
            file=sys.stderr,
        )
        raise SystemExit(2)
    np.savez(args.output, cells=cells, conditions=rows, detector=facts["detector"], model=facts["model"])
    print(
        f"{len(cells)} showers of {facts['model']} in {facts['detector']}, mean visible energy {cells.sum(1).mean():.1f} MeV"
    )


if __name__ == "__main__":
    main()
