"""Hugging Face vision models from folders and the hub, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import nn

from autogaze.errors import CheckpointError
from autogaze.models.autogaze.checkpoint import CONFIG_NAME, HubOptions
from autogaze.models.autogaze.processing_autogaze import PROCESSOR_NAME

VIDEO_PROCESSOR_NAME = "video_preprocessor_config.json"
"""Where video models say how their frames are normalised."""


def local_folder(source: str | os.PathLike[str], hub: HubOptions) -> Path:
    """Where the files of a model are: its folder, or where its hub id was downloaded to.

    Raises:
        CheckpointError: there is nothing of that name, or the hub cannot be reached.
    """
    path = Path(source)
    if path.is_dir():
        return path
    if path.is_file():
        raise CheckpointError(f"{path} is a file; give the folder that holds {CONFIG_NAME} and model.safetensors")
    name = str(source)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(f"no vision model at {name}: there is no such folder, and it is no hub id")
    try:
        return Path(
            snapshot_download(
                name,
                allow_patterns=[
                    *(CONFIG_NAME, PROCESSOR_NAME, VIDEO_PROCESSOR_NAME),
                    *("model*.safetensors", "model.safetensors.index.json"),
                ],
                revision=hub.revision,
                token=hub.token,
                cache_dir=hub.cache_dir,
                local_files_only=hub.local_files_only,
            )
        )
    except HFValidationError as error:
        raise CheckpointError(f"{name} is neither a folder nor a legal hub id: {error}") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"cannot get {name} from the hub ({reason}); a local folder works offline") from error


def load_model(model_class: Any, folder: Path, **options: Any) -> nn.Module:
    """A model of a class of transformers with all its weights.

    Raises:
        CheckpointError: files are missing or damaged, or some weights are not there.
    """
    try:
        model, found = model_class.from_pretrained(
            folder, output_loading_info=True, local_files_only=True, ignore_mismatched_sizes=True, **options
        )
    except Exception as error:  # whatever transformers and safetensors raise on files that do not fit
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(f"{folder} cannot be read as a {model_class.__name__}: {reason}") from error
    # Weights that are not there would be random, and the loss noise.
    wrong = [*sorted(found["missing_keys"]), *(str(entry) for entry in found["mismatched_keys"])]
    if wrong:
        shown = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise CheckpointError(f"{folder} lacks weights of a {model_class.__name__}, or has them misshapen: {shown}")
    return model  # type: ignore[no-any-return]


@contextmanager
def quiet(transformers: ModuleType) -> Iterator[None]:
    """No progress bars or reports of weights that are rightly left out."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
