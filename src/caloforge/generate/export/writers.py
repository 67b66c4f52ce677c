"""The files: an ONNX graph, and a package that torch compiles for this machine's processor.

ONNX has no operator that finds a number's place among sorted knots; it is searched by halves here. Loops over the steps of a flow are one
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


class Writer(NamedTuple):
    """How a kind of file is written."""

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

    aten = torch.ops.aten
    return {aten.searchsorted.Tensor: searchsorted, aten.bucketize.Tensor: bucketize}


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
