"""Precision and compilation of a model's networks in generation.

A model names the methods that may compute in less than float32 (``ShowerModel.low_precision``) and those worth compiling
(``ShowerModel.compilable``); all else stays as it is. Before showers are made in another way than plain float32, some are made in
both, of the same noise and conditions, and compared: what moves the mean visible energy by more than 0.1 % or the mean number of hits
by more than 0.2 % is refused (:meth:`Means.check`).

Compiled methods see one shape, since batches are padded to their full height. What the compiler made is kept in the user's cache, so
that the next process begins sooner; the environment's ``TORCHINDUCTOR_CACHE_DIR`` names another folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from caloforge.errors import InputError, UnknownNameError
from caloforge.models.base import ShowerModel

__all__ = ["PLAIN", "PRECISIONS", "Means", "NetworkMode", "compiler_cache"]

_CACHE = "TORCHINDUCTOR_CACHE_DIR"
_GRAPHS = 64  # of one method: of each member and of each kind of step
_ENERGY_LIMIT, _HITS_LIMIT = 1e-3, 2e-3  # largest relative changes of the means


@contextmanager
def _tf32(device: torch.device) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _bf16(device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16)


def _float32(device: torch.device) -> AbstractContextManager[Any]:
    return nullcontext()


PRECISIONS: dict[str, Callable[[torch.device], AbstractContextManager[Any]]] = {
    "float32": _float32,
    "tf32": _tf32,
    "bf16": _bf16,
}
"""Name of a precision to the context in which the networks compute."""
PLAIN = "float32"
"""The precision of models as they are."""
_GPU_ONLY = ("tf32",)


class NetworkMode:
    """The way in which the networks of some models compute, once :meth:`applied`.

    Arguments:
        members: Models of one kind on the device.
        name: Of the model, for messages.
        precision: One of :data:`PRECISIONS`.
        compiled: Compile the methods that the models name.
        backend: What compiles them.

    Raises:
        UnknownNameError: When there is no such precision.
        InputError: When the models name no such methods, or the device cannot do it.
    """

    def __init__(
        self,
        members: Sequence[ShowerModel],
        name: str,
        device: torch.device,
        precision: str = PLAIN,
        compiled: bool = False,
        backend: str | Callable[..., Any] = "inductor",
    ) -> None:
        if precision not in PRECISIONS:
            raise UnknownNameError("precision", precision, list(PRECISIONS))
        low = () if precision == PLAIN else members[0].low_precision
        if precision != PLAIN and not low:
            msg = f"{name}: no network of this model is known to be safe in {precision}; use --precision {PLAIN}"
            raise InputError(msg)
        if precision in _GPU_ONLY and device.type != "cuda":
            raise InputError(
                f"precision {precision} needs an NVIDIA GPU; use bf16 or {PLAIN} on {device.type}"
            )
        if compiled and not members[0].compilable:
            raise InputError(f"{name}: this model names nothing to compile; leave out --compile")
        if compiled and device.type != "cuda" and backend == "inductor":
            raise InputError(
                f"networks are compiled for GPUs alone, not on {device.type}; leave out --compile"
            )
        self.precision, self.compiled, self._name = precision, compiled, name
        self._calls: list[tuple[nn.Module, str, Callable[..., Any]]] = []
        if compiled:
            import torch._dynamo

            compiler_cache()
            torch._dynamo.config.recompile_limit = max(_GRAPHS, torch._dynamo.config.recompile_limit)
        for member in members:
            for path in dict.fromkeys((*low, *(member.compilable if compiled else ()))):
                module, method = member.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2]
                call = getattr(module, method)
                if compiled and path in member.compilable:
                    call = _compiled(call, device, backend)
                if path in low:
                    call = _inside(call, PRECISIONS[precision], device)
                self._calls.append((module, method, call))

    @property
    def plain(self) -> bool:
        """Whether nothing differs from the networks as they are."""
        return not self._calls

    @property
    def label(self) -> str:
        """The mode in words."""
        return f"{self.precision}, compiled," if self.compiled else self.precision

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the networks compute in this way; at the end they are as before."""
        try:
            for module, method, call in self._calls:
                setattr(module, method, call)
            yield
        finally:
            for module, method, _ in self._calls:
                vars(module).pop(method, None)

    def describe(self) -> str:
        """Return a line about what is compiled and where it is kept; empty where nothing is."""
        if not self.compiled:
            return ""
        return f"{self._name}: the networks are compiled, which takes minutes the first time; they are kept in {compiler_cache()}"


def _inside(
    call: Callable[..., Any],
    context: Callable[[torch.device], AbstractContextManager[Any]],
    device: torch.device,
) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        with context(device):
            return call(*arguments)

    return run


def _compiled(
    call: Callable[..., Any], device: torch.device, backend: str | Callable[..., Any]
) -> Callable[..., Any]:
    """Return a method compiled for fixed shapes: one graph for each kind of call.

    Numbers below 1, which are times, go in as tensors, so that each does not make a graph; tensors go in without gaps.
    """
    fast = torch.compile(call, dynamic=False, backend=backend)

    def uniform(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.contiguous()
        return torch.full((), value, device=device) if isinstance(value, float) and value < 1.0 else value

    def run(*arguments: Any) -> Any:
        return fast(*map(uniform, arguments))

    return run


def compiler_cache() -> Path:
    """Return the folder in which compiled networks are kept: that of the environment, or one in the user's cache, which is then set."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.setdefault(_CACHE, str(Path(base) / "caloforge" / "compiled")))


class Means(NamedTuple):
    """Means on which two ways of computing must agree."""

    energy: float  # mean visible energy, MeV
    hits: float  # mean number of cells above the threshold
    n: int  # showers

    @classmethod
    def of(cls, parts: Iterable[Tensor], threshold: float) -> Means:
        """Return those of cells (B, n_cells), MeV, in parts."""
        energy, hits, n = 0.0, 0.0, 0
        for cells in parts:
            energy += float(cells.sum(dtype=torch.float64))
            hits += float((cells > threshold).sum())
            n += len(cells)
        return cls(energy / max(1, n), hits / max(1, n), n)

    def check(self, other: Means, name: str, mode: str) -> None:
        """Compare another way of computing, ``mode``, of the model ``name`` with this one.

        Raises:
            InputError: When a mean moved by more than its limit, or is not a number.
        """
        rows = (
            ("mean visible energy", self.energy, other.energy, _ENERGY_LIMIT),
            ("mean number of hits", self.hits, other.hits, _HITS_LIMIT),
        )
        for what, expected, found, limit in rows:
            if not abs(found - expected) <= limit * abs(expected):
                moved = f"{100 * (found / expected - 1):+.2f} %" if expected else f"to {found:g} from 0"
                raise InputError(
                    f"{name}: {mode} moves the {what} of {self.n} showers by {moved}, more than {100 * limit:g} %; "
                    f"use --precision {PLAIN}{' without --compile' if 'compiled' in mode else ''}"
                )
