"""Programs as files: captured by ``torch.export``, written as they are or as ONNX, and read back for comparison."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule

from autogaze.export.programs import FRAMES, PAST, TOKENS, Program
from autogaze.extras import require

Format: TypeAlias = Literal["onnx", "torch"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
"""Endings of the files."""
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_COMPARED = ({FRAMES: 1, TOKENS: 1, PAST: 0}, {FRAMES: 2, TOKENS: 11, PAST: 30})
"""Sizes that a written program is compared at: the smallest, and some that it was not captured with."""

_Run: TypeAlias = Callable[[Sequence[Tensor]], Sequence[Tensor]]


def check_format(format: str) -> None:
    """Find out before any work whether programs can be written like this.

    Raises:
        ValueError: there is no such format.
        ImportError: it takes packages that are not installed.
    """
    if format not in SUFFIXES:
        raise ValueError(f"format must be {' or '.join(SUFFIXES)}, got {format!r}")
    if format == "onnx":
        for package in _PACKAGES:
            require(package, extra="export")


def write(program: Program, path: Path, *, format: Format) -> None:
    """Write a program into one file, without a trace of the machine it was made on.

    Raises:
        OSError: the file cannot be written.
    """
    with _quiet(), torch.no_grad():
        inputs = tuple(program.sample(seed=0))
        captured = torch.export.export(program.module, inputs, dynamic_shapes=program.dynamic_shapes())
        _forget_source(captured)
        if format == "torch":
            torch.export.save(captured, path)
        else:
            _write_onnx(captured, program, path)


def difference(program: Program, path: Path, *, format: Format) -> float:
    """The largest difference of any output between the network and what was written of it, on random inputs."""
    run = _torch_run(path) if format == "torch" else _onnx_run(path, program)
    largest = []
    for seed, sizes in enumerate(_COMPARED):
        inputs = program.sample(seed=seed, sizes=sizes)
        with torch.no_grad():
            outputs = zip(program.module(*inputs), run(inputs), strict=True)
            largest += [(a - b).abs().max() for a, b in outputs]
    return float(torch.stack(largest).max())  # NaN if one is


def _forget_source(captured: ExportedProgram) -> None:
    """Forget which lines of which files the operations come from."""
    for module in captured.graph_module.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)


def _write_onnx(captured: ExportedProgram, program: Program, path: Path) -> None:
    written = torch.onnx.export(
        captured,
        input_names=[port.name for port in program.inputs],
        output_names=[port.name for port in program.outputs],
        dynamic_shapes=program.axis_names(),
        dynamo=True,
        verbose=False,
    )
    assert written is not None
    for graph in (written.model.graph, *written.model.functions.values()):
        for node in graph:
            node.metadata_props.clear()
    written.save(path, external_data=False)


def _torch_run(path: Path) -> _Run:
    module = torch.export.load(path).module()
    return lambda inputs: module(*inputs)


def _onnx_run(path: Path, program: Program) -> _Run:
    onnxruntime = require("onnxruntime", extra="export")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        feed = {port.name: value.numpy() for port, value in zip(program.inputs, inputs, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, feed)]

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says about packages that play no part, and about its own future."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.filterwarnings("ignore", "# The axis name", UserWarning)  # several inputs share each name
            yield
    finally:
        logger.setLevel(before)
