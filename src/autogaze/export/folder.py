"""A checkpoint in, a folder out that a machine without torch can gaze with."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from autogaze.archive import atomic_path
from autogaze.errors import AutoGazeError
from autogaze.export.formats import SUFFIXES, Format, check_format, difference, write
from autogaze.export.manifest import MANIFEST_NAME, Manifest
from autogaze.export.programs import Program, decoder_program, encoder_program
from autogaze.loading import BUNDLED, Model, load_selector
from autogaze.models.autogaze.selector import AutoGazeSelector
from autogaze.results import check_out

_STEMS = ("encoder", "decoder_step")
TOLERANCE = 1e-3
"""A program whose outputs differ by more from the network's is not written: rounding does not explain it."""


class ExportError(AutoGazeError):
    """A model cannot be exported, or something is in the way."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written."""

    folder: Path
    """Where."""
    files: tuple[str, ...]
    """Names of the files, the manifest last."""
    num_bytes: int
    """Size of all of them."""
    difference: float
    """Largest difference of any output from the network's, on random inputs."""


def export_gaze_model(
    model: Model, folder: str | os.PathLike[str], *, format: Format = "onnx", overwrite: bool = False
) -> Exported:
    """Write a gaze model as two programs, ``encoder`` and ``decoder_step``, and ``gaze.json`` about them.

    Programs compute in fp32, for one clip, with any number of frames or tokens at a time; what the convolutions
    remember and the decoder's cache go in and come out. Choosing and stopping is left to the host: 40 lines of numpy in
    ``examples/gaze_with_onnxruntime.py``. Each program is run and compared with the network before it takes its place.

    Args:
        model: ``"bundled"``, a checkpoint folder, a ``.safetensors`` file, a hub id, or a gaze model.
        folder: where the files go; made if need be.
        format: ``"onnx"``, with the weights inside the files, or ``"torch"`` for ``torch.export.load``.
        overwrite: replace an export that is there already.

    Raises:
        ExportError: the model has no network, the folder holds an export already, or what was written computes
            something else than the network.
        CheckpointError: there is no such checkpoint, or it cannot be loaded.
        OutputError: the folder cannot be written into.
        ImportError: ``"onnx"`` takes packages that are not installed.
        ValueError: there is no such format.
    """
    check_format(format)
    folder, suffix = Path(folder), SUFFIXES[format]
    check_out(folder)
    _check_free(folder, overwrite=overwrite)
    selector = _gaze_model(model)
    programs = (encoder_program(selector.model), decoder_program(selector.model))
    manifest = Manifest.of(selector, programs, format=format, suffix=suffix)
    with _workshop(folder) as workshop:
        paths = [workshop / f"{program.name}{suffix}" for program in programs]
        for program, path in zip(programs, paths, strict=True):
            write(program, path, format=format)
        differences = [_checked(program, path, format) for program, path in zip(programs, paths, strict=True)]
        # What lies there goes first and the manifest comes last: a folder that is interrupted says nothing false.
        for name in _names():
            (folder / name).unlink(missing_ok=True)
        for path in paths:
            path.replace(folder / path.name)
    with atomic_path(folder / MANIFEST_NAME) as temporary:
        temporary.write_text(json.dumps(manifest.to_json(), indent=1) + "\n", encoding="utf-8")
    files = (*(path.name for path in paths), MANIFEST_NAME)
    size = sum((folder / name).stat().st_size for name in files)
    return Exported(folder=folder, files=files, num_bytes=size, difference=max(differences))


def _names() -> list[str]:
    """Every file that an export may have."""
    return [MANIFEST_NAME, *(stem + suffix for stem in _STEMS for suffix in SUFFIXES.values())]


def _check_free(folder: Path, *, overwrite: bool) -> None:
    taken = [name for name in _names() if (folder / name).exists()]
    if taken and not overwrite:
        raise ExportError(
            f"{folder} holds {' and '.join(taken)} already; --overwrite replaces an export, --out names another folder"
        )


def _gaze_model(model: Model) -> AutoGazeSelector:
    """The gaze model behind a name, in fp32 on the CPU; one that was handed in stays as it is."""
    selector = load_selector(model)
    if not isinstance(selector, AutoGazeSelector):
        raise ExportError(
            f"{selector.name} has no network to export; legal are {BUNDLED}, a checkpoint folder, a .safetensors file, "
            f"or a hub id such as nvidia/AutoGaze"
        )
    network = deepcopy(selector.model).float().cpu().eval()
    return AutoGazeSelector(network, name=selector.name, budget=selector.default_budget)


def _checked(program: Program, path: Path, format: Format) -> float:
    """How far the outputs of what was written are from the network's."""
    largest = difference(program, path, format=format)
    if not largest <= TOLERANCE:  # nor if it is NaN
        raise ExportError(
            f"outputs of {path.name} are up to {largest:.3g} away from the network's, which rounding does not explain; "
            f"try other versions of torch and onnxruntime, or the other format"
        )
    return largest


@contextmanager
def _workshop(folder: Path) -> Iterator[Path]:
    """A hidden folder inside ``folder``, which is made if need be and goes again if the block fails."""
    missing = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as workshop:
            yield Path(workshop)
    except BaseException:
        if missing:
            with suppress(OSError):
                folder.rmdir()
        raise
