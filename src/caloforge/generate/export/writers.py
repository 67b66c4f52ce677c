"""The files: an ONNX graph, and a package that torch compiles for this machine's processor.

ONNX has no operator that finds a number's place among sorted knots; it is searched by halves here. A stable sort is ``TopK`` of all. Loops over the steps of a flow are one
``Scan`` each, so that a graph has its weights and operators once.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from caloforge.errors import InputError, require
from caloforge.generate.export.form import CellForm

__all__ = ["WRITERS", "Writer", "load_exported"]

EXTRA = "export"
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_OPSET = 20
_ERFC = (
    0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196, 1.00002368,
    -1.26551223,
)  # fmt: skip
_ERFINV_MIDDLE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
    0.246640727, 1.50140941,
)  # fmt: skip
_ERFINV_TAIL = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
    1.00167406, 2.83297682,
)  # fmt: skip


class Writer(NamedTuple):
    """Writes one kind of file."""

    check: Callable[[], None]  # raises when something is missing
    write: Callable[[CellForm, Mapping[str, Tensor], Path, Mapping[str, str]], None]


def _traced(graph: CellForm, example: Mapping[str, Tensor]) -> torch.export.ExportedProgram:
    """Trace a graph with an example of its inputs, for any number of rows."""
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} for _ in example)
    return torch.export.export(graph, tuple(example.values()), dynamic_shapes=shapes, strict=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what torch's exporters log and warn of, which is about their own work."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _check_onnx() -> None:
    for name in _PACKAGES:
        require(name, EXTRA)


def _write_onnx(
    graph: CellForm, example: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]
) -> None:
    with _quiet():
        try:
            program = torch.onnx.export(
                _traced(graph, example),
                (),
                dynamo=True,
                opset_version=_OPSET,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                custom_translation_table=_translations(),
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            missing = re.findall(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", str(error))
            if not missing:
                raise
            msg = f"'{type(graph.model).__name__}' cannot be written as ONNX: '{missing[0]}' has no ONNX form"
            raise InputError(msg) from error
        assert program is not None
        for (
            node
        ) in program.model.graph.all_nodes():  # stack traces of the trace, ten times as long as all weights
            node.metadata_props.clear()
        for name, value in metadata.items():
            program.model.metadata_props[name] = value
        program.model.producer_name = "caloforge"
        program.save(str(path), external_data=False)


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return operators of torch to functions that build them of ONNX operators."""
    op = require("onnxscript", EXTRA).opset20
    int64 = 7  # onnx.TensorProtocol.INT64

    def searchsorted(knots: Any, values: Any, out_int32: bool = False, right: bool = False, **_: Any) -> Any:
        """Return how many knots (k,) or (rows, k) lie below the values, or at them where ``right``: halves from the largest on."""
        n = int(knots.shape[-1])
        flat = len(knots.shape) == 1
        one, last = op.Constant(value_int=1), op.Constant(value_int=n - 1)
        found = op.Cast(op.Mul(values, op.CastLike(op.Constant(value_float=0.0), values)), to=int64)
        step = 1 << (n.bit_length() - 1)
        while step:
            ahead = op.Add(found, op.Constant(value_int=step))
            place = op.Min(op.Sub(ahead, one), last)
            knot = op.Gather(knots, place) if flat else op.GatherElements(knots, place, axis=-1)
            below = op.LessOrEqual(knot, values) if right else op.Less(knot, values)
            inside = op.And(below, op.LessOrEqual(ahead, op.Constant(value_int=n)))
            found = op.Where(inside, ahead, found)
            step //= 2
        return found

    def bucketize(values: Any, edges: Any, out_int32: bool = False, right: bool = False) -> Any:
        return searchsorted(edges, values, right=right)

    def sort(x: Any, stable: bool = False, dim: int = -1, descending: bool = False) -> Any:
        """Sort along an axis; of equal values TopK has the one with the lower index first."""
        size = op.Reshape(op.Gather(op.Shape(x), op.Constant(value_int=dim)), op.Constant(value_ints=[1]))
        return op.TopK(x, size, axis=dim, largest=int(descending), sorted=1)

    def polynomial(x: Any, terms: tuple[float, ...]) -> Any:
        """Return a polynomial, its highest power first."""
        found = op.Constant(value_float=terms[0])
        for term in terms[1:]:
            found = op.Add(op.Mul(found, x), op.Constant(value_float=term))
        return found

    def erfc(x: Any) -> Any:
        """Return 1 - erf(x), to 1e-7 of itself in both tails (Numerical Recipes, section 6.2)."""
        one, size = op.Constant(value_float=1.0), op.Abs(x)
        t = op.Div(one, op.Add(one, op.Mul(op.Constant(value_float=0.5), size)))
        tail = op.Mul(t, op.Exp(op.Sub(polynomial(t, _ERFC), op.Mul(size, size))))
        upper = op.Less(x, op.Constant(value_float=0.0))
        return op.Where(upper, op.Sub(op.Constant(value_float=2.0), tail), tail)

    def erfinv(x: Any) -> Any:
        """Return the inverse of erf in single precision (M. Giles, GPU Computing Gems, 2011)."""
        one = op.Constant(value_float=1.0)
        w = op.Neg(op.Log(op.Mul(op.Sub(one, x), op.Add(one, x))))
        middle = polynomial(op.Sub(w, op.Constant(value_float=2.5)), _ERFINV_MIDDLE)
        tail = polynomial(op.Sub(op.Sqrt(w), op.Constant(value_float=3.0)), _ERFINV_TAIL)
        return op.Mul(x, op.Where(op.Less(w, op.Constant(value_float=5.0)), middle, tail))

    def sigmoid(x: Any) -> Any:
        """Return 1 / (1 + exp(-x)): ONNX Runtime's own is exact to 1e-7 of 1, not of a small result, as of faint cells."""
        return op.Reciprocal(op.Add(op.Constant(value_float=1.0), op.Exp(op.Neg(x))))

    def log1p(x: Any) -> Any:
        """Return ln(1 + x), exact for small x: ln(u) x / (u - 1) with u = 1 + x as it is rounded (W. Kahan)."""
        one = op.Constant(value_float=1.0)
        u = op.Add(one, x)
        return op.Where(op.Equal(u, one), x, op.Div(op.Mul(op.Log(u), x), op.Sub(u, one)))

    def expm1(x: Any) -> Any:
        """Return exp(x) - 1, exact for small x: (u - 1) x / ln(u) with u = exp(x) as it is rounded; -1 where that is 0."""
        one = op.Constant(value_float=1.0)
        u = op.Exp(x)
        change = op.Sub(u, one)
        found = op.Where(op.Equal(u, one), x, op.Div(op.Mul(change, x), op.Log(u)))
        return op.Where(op.Less(x, op.Constant(value_float=-20.0)), change, found)

    aten = torch.ops.aten
    return {
        aten.log1p.default: log1p,
        aten.expm1.default: expm1,
        aten.sigmoid.default: sigmoid,
        aten.erfc.default: erfc,
        aten.erfinv.default: erfinv,
        aten.searchsorted.Tensor: searchsorted,
        aten.bucketize.Tensor: bucketize,
        aten.sort.stable: sort,
    }


def _check_compiler() -> None:
    from torch._inductor import config

    chosen = config.cpp.cxx
    names = [str(name) for name in ([chosen] if isinstance(chosen, str) else chosen) if name]
    if not any(shutil.which(name) for name in names):
        msg = f"a compiled package (.pt2) needs a C++ compiler, and none was found ({', '.join(names)}); install g++, or write .onnx"
        raise InputError(msg)


def _write_package(
    graph: CellForm, example: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]
) -> None:
    with _quiet():
        torch._inductor.aoti_compile_and_package(
            _traced(graph, example),
            package_path=str(path),
            inductor_configs={"aot_inductor.metadata": dict(metadata)},
        )


WRITERS: Mapping[str, Writer] = {
    ".onnx": Writer(_check_onnx, _write_onnx),
    ".pt2": Writer(_check_compiler, _write_package),
}
"""Suffixes to writers."""


def load_exported(
    path: str | Path, threads: int = 1
) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
    """Return a written file as a function from inputs by name, in order, to the outputs."""
    path = Path(path)
    if path.suffix == ".onnx":
        runtime = require("onnxruntime", EXTRA)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return lambda inputs: list(session.run(None, dict(inputs)))
    package = torch._inductor.aoti_load_package(str(path))

    def run(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        with torch.inference_mode():
            return [found.numpy() for found in package(*map(torch.from_numpy, inputs.values()))]

    return run
