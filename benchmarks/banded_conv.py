"""Training steps of the Conv3D GAN with plain and with banded convolutions.

    python benchmarks/banded_conv.py [--device cuda] [--batch 64] [--tiles 64,128,256] [--seconds 55]

For both grids it prints milliseconds of the generator (forward and backward), of the discriminator (the same) and of the
discriminator with the penalty R1 (forward, gradient, its gradient), plain and banded, and the ratios measured in this
one run; also the largest memory. On CUDA devices in TF32 and in bf16 (autocast; training itself computes R1 in 32
bits), on CPUs in float32 on one thread with 16 showers. Each of ``--tiles`` is one more banded form, with blocks chosen
for as many channels at once. What runs out of memory or of ``--seconds`` is left out and said so.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from caloforge.geometry import get_detector
from caloforge.models.grid_gan.banded_conv import BandedConv3d, choose_block
from caloforge.models.grid_gan.conv3d import Conv3dGan
from caloforge.models.nn.adversarial import gradient_square

DETECTORS = ("clic-ecal", "clic-ecal-wide")
AUTO = "as dispatched"


def set_form(model: nn.Module, form: str) -> None:
    """Choose how all convolutions are computed."""
    for layer in model.modules():
        if not isinstance(layer, BandedConv3d):
            continue
        layer.banded = {"plain": False, AUTO: None}.get(form, True)
        if form.startswith("tile "):
            x, y, z = layer.axes
            outputs = layer.out_channels * x.block * y.block
            z = choose_block(z, layer.in_channels, outputs, x.window * y.window, int(form.split()[1]))
            layer.axes = (x, y, z)


def steps(model: Conv3dGan, batch: int, device: torch.device) -> dict[str, Callable[[], None]]:
    """Return what is timed: name to a function that leaves gradients."""
    shape = model.detector.shape
    noise = torch.randn(batch, model.latent_size, device=device)
    cells = torch.rand(batch, *shape, device=device)
    conditions = torch.full((batch, len(model.conditions)), 9e4, device=device)
    if model.angled:
        conditions[:, 1] = 90.0

    def generator() -> None:
        model.generator(noise).float().square().mean().backward()

    def discriminator() -> None:
        model.judge(cells, conditions).real.sum().backward()

    def penalty() -> None:
        values = cells.clone().requires_grad_()
        heads = model.judge(values, conditions)
        loss: Tensor = heads.real.mean() + gradient_square(heads.real, values)
        loss.backward()

    return {"generator": generator, "discriminator": discriminator, "R1": penalty}


def milliseconds(step: Callable[[], None], device: torch.device, most: float) -> float:
    """Return the least time of a step; at least two of them, more while ``most`` seconds last."""
    cuda = device.type == "cuda"
    step()
    if cuda:
        torch.cuda.synchronize()
    times: list[float] = []
    while len(times) < 2 or (sum(times) < most and len(times) < 20):
        start = time.perf_counter() if cuda else time.process_time()
        step()
        if cuda:
            torch.cuda.synchronize()
        times.append((time.perf_counter() if cuda else time.process_time()) - start)
    return 1e3 * min(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--tiles", default="")
    parser.add_argument("--seconds", type=float, default=55.0)
    arguments = parser.parse_args()
    device, end = torch.device(arguments.device), time.monotonic() + arguments.seconds
    cuda = device.type == "cuda"
    batch = arguments.batch or (64 if cuda else 16)
    if cuda:
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
    else:
        torch.set_num_threads(1)
    forms = ["banded", *(f"tile {t}" for t in arguments.tiles.split(",") if t), "plain"]
    if not cuda:
        forms.insert(1, AUTO)
    print(f"{torch.cuda.get_device_name(device) if cuda else 'CPU, one thread'}, {batch} showers, ms")
    print(
        f"{'grid':15s} {'numbers':8s} {'step':14s}" + "".join(f"{f:>15s}" for f in forms) + "  plain/banded"
    )
    for name in DETECTORS:
        torch.manual_seed(0)
        model = Conv3dGan(get_detector(name), Conv3dGan.resolve()).to(device)
        for numbers in ("TF32", "bf16") if cuda else ("float32",):
            rounded = torch.autocast(device.type, torch.bfloat16, enabled=numbers == "bf16")
            for label in ("generator", "discriminator", "R1"):
                found: dict[str, float] = {}
                cells = []
                for form in forms:
                    set_form(model, form)
                    if time.monotonic() > end:
                        cells.append("no time")
                        continue
                    if cuda:
                        torch.cuda.empty_cache()
                        torch.cuda.reset_peak_memory_stats()
                    try:
                        with rounded:
                            found[form] = milliseconds(steps(model, batch, device)[label], device, 0.3)
                    except (torch.cuda.OutOfMemoryError, RuntimeError) as error:
                        cells.append("no memory" if "memory" in str(error) else type(error).__name__)
                        print(f"  {form}: {str(error).splitlines()[0][:150]}")
                    else:
                        memory = f" {torch.cuda.max_memory_allocated() / 2**30:.1f}G" if cuda else ""
                        cells.append(f"{found[form]:.1f}{memory}")
                    model.zero_grad(set_to_none=True)
                ratio = ""
                with contextlib.suppress(KeyError):
                    ratio = f"{found['plain'] / found['banded']:.2f}"
                row = "".join(f"{cell:>15s}" for cell in cells)
                print(f"{name:15s} {numbers:8s} {label:14s}{row}  {ratio:>12s}", flush=True)


if __name__ == "__main__":
    main()
