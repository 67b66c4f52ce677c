"""Time the flow models on a GPU: bfloat16 and compiled networks beside plain float32, in one run.

    python benchmarks/flow_gpu.py [SOURCE ...] [--batch 4000] [--seconds 3]

A source is a run folder or a shipped model, DATASET/MODEL; by default all shipped flows. Timed is ``sample``, from noise and
conditions that lie on the device to cells that stay there: summary, cells and decoding, but neither the counted noise
nor the copy of the cells; bench_engine.py times these, too, and the forms of ``caloforge generate``. The last columns say what bfloat16 does to the showers:
the mean visible energy and the mean number of hits, over those of the same noise in float32.

Without a CUDA device it says so and ends with exit code 2.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from caloforge.errors import CaloforgeError, InputError
from caloforge.models import MODELS
from caloforge.models.flow.model import FlowMatching
from caloforge.zoo.store import load, shipped_models

NO_DEVICE = 2


@dataclass(frozen=True)
class Form:
    """How a model is run.

    Attributes:
        name: For the table.
        bf16: Networks in bfloat16 (autocast), what is left of float32 in TF32.
        backend: What compiles the networks; empty: nothing does.
    """

    name: str
    bf16: bool = False
    backend: str | Callable[..., Any] = ""


PLAIN = Form("float32")
FAST = Form("bf16, compiled", bf16=True, backend="inductor")


def shipped_flows() -> list[str]:
    """Return the names of the shipped flows."""
    cards = shipped_models()
    return [name for name, card in cards.items() if issubclass(MODELS[card.content["model"]], FlowMatching)]


def networks(model: FlowMatching) -> list[nn.Module]:
    """Return the networks that sampling runs."""
    return [
        child
        for name, child in model.named_children()
        if name not in model.training_only and any(True for _ in child.parameters())
    ]


def conditions(model: FlowMatching, n: int, seed: int = 0) -> Tensor:
    """Return conditions (n, C), spread evenly over the range of the training."""
    u = torch.rand(n, model.n_conditions, generator=torch.Generator().manual_seed(seed))
    low, high = model.condition_low, model.condition_high
    return low + (high - low) * u.to(low.device)


@contextmanager
def running(model: FlowMatching, form: Form) -> Iterator[None]:
    """Run a model in a form; at the end its networks are as before."""
    precision = torch.get_float32_matmul_precision()
    chosen = networks(model) if form.backend else []
    device = next(model.parameters()).device.type
    torch.set_float32_matmul_precision("high" if form.bf16 else "highest")
    for network in chosen:
        network.compile(backend=form.backend)
    try:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=form.bf16):
            yield
    finally:
        for network in chosen:
            network._compiled_call_impl = None
        torch.set_float32_matmul_precision(precision)


def seconds_of(call: Callable[[], Tensor], least: float) -> float:
    """Return the median time of a call; three at least, more until ``least`` seconds are over. Two more go first, uncounted."""
    wait = torch.cuda.synchronize if call().is_cuda else lambda: None
    call()
    times: list[float] = []
    while len(times) < 3 or sum(times) < least:
        wait()
        began = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - began)
    return median(times)


@dataclass(frozen=True)
class Timed:
    """What one form gave.

    Attributes:
        microseconds: A shower.
        energy: Mean visible energy, MeV.
        hits: Mean number of cells above the model's threshold.
    """

    microseconds: float
    energy: float
    hits: float


def timed(model: FlowMatching, form: Form, batch: int, least: float) -> Timed:
    """Time ``sample`` of ``batch`` showers at once, on the model's device."""
    given = conditions(model, batch)
    noise = torch.randn(batch, model.noise_size, generator=torch.Generator().manual_seed(0)).to(given.device)
    with running(model, form):
        seconds = seconds_of(lambda: model.sample(noise, given), least)
        cells = model.sample(noise, given).float()
    hits = (cells > model.config.threshold).sum(1).float().mean()
    return Timed(1e6 * seconds / batch, float(cells.sum(1).mean()), float(hits))


def flow(source: str, device: str) -> FlowMatching:
    """Load a flow.

    Raises:
        InputError: When the source is another model.
    """
    model = load(source, device).model
    if not isinstance(model, FlowMatching):
        msg = f"{source} is a {type(model).__name__}; expected a flow-matching or flow-matching-fast"
        raise InputError(msg)
    return model


def main(words: list[str] | None = None) -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "source", nargs="*", help="run folders or shipped models, DATASET/MODEL; all shipped flows"
    )
    parser.add_argument("--batch", type=int, default=4000, help="showers at once")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each is timed at least")
    options = parser.parse_args(words)
    if not torch.cuda.is_available():
        print("flow_gpu: torch finds no CUDA device here; nothing was timed", file=sys.stderr)
        return NO_DEVICE
    print(f"{torch.cuda.get_device_name()}, {options.batch:,} showers at once, microseconds a shower")
    print(f"{'model':38s}{PLAIN.name:>10s}{FAST.name:>16s}{'faster':>9s}{'energy':>10s}{'hits':>9s}")
    try:
        for source in options.source or shipped_flows():
            model = flow(source, "cuda")
            plain, fast = (timed(model, form, options.batch, options.seconds) for form in (PLAIN, FAST))
            ratio = plain.microseconds / fast.microseconds
            print(
                f"{source:38s}{plain.microseconds:10.1f}{fast.microseconds:16.1f}{ratio:8.2f}x"
                f"{fast.energy / plain.energy:10.4f}{fast.hits / plain.hits:9.4f}",
                flush=True,
            )
            del model
            torch.cuda.empty_cache()
    except CaloforgeError as error:
        print(f"flow_gpu: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
