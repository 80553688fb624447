"""Checkpoints on disk and on the hub: ``config.json`` beside ``model.safetensors``, loaded strictly."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from autogaze.archive import atomic_path
from autogaze.errors import CheckpointError
from autogaze.models.autogaze.calibration import CALIBRATION_NAME
from autogaze.models.autogaze.processing_autogaze import PROCESSOR_NAME

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class HubOptions:
    """How a checkpoint is fetched from the hub; unused for local ones."""

    revision: str | None = None
    """Branch, tag or commit; None: the default branch."""
    token: str | None = None
    """Access token; None: the one stored on this machine, if any."""
    cache_dir: str | None = None
    """Where downloads are kept; None: the hub's usual place."""
    local_files_only: bool = False
    """Use what was downloaded before and never the network."""


class JsonConfig(Protocol):
    """A configuration that can be written."""

    def to_json_file(self, path: Path) -> None:
        """Write ``config.json``."""
        ...


def find_files(
    source: str | os.PathLike[str], hub: HubOptions, *, weights_names: Sequence[str] = (WEIGHTS_NAME,)
) -> tuple[Path, Path]:
    """The configuration and the weights of a folder, a file or a hub id; they need not exist in a folder.

    Args:
        source: the folder, the weights with their ``config.json`` beside them, or a hub id.
        hub: how to fetch from the hub.
        weights_names: what the weights of a folder may be called, the best first; files of other suffixes are refused.

    Raises:
        CheckpointError: nothing is there, or the hub cannot be reached or does not have it.
    """
    path, suffixes = Path(source), list(dict.fromkeys(Path(name).suffix for name in weights_names))
    if path.is_dir():
        return path / CONFIG_NAME, _weights_in(path, weights_names)
    if path.is_file():
        if path.suffix not in suffixes:
            raise CheckpointError(
                f"{path} is not a checkpoint; give a folder with {CONFIG_NAME} and {' or '.join(weights_names)}, "
                f"a {' or '.join(suffixes)} file with its config.json beside it, or a hub id like owner/name"
            )
        return path.with_name(CONFIG_NAME), path
    name = str(source)
    if name.count("/") != 1 or path.suffix in suffixes or name.startswith((".", "/", "~")):
        raise CheckpointError(f"no checkpoint at {name}: there is no such folder or file, and it is no hub id")
    try:
        folder = Path(
            snapshot_download(
                name,
                allow_patterns=[CONFIG_NAME, *weights_names, CALIBRATION_NAME, PROCESSOR_NAME],
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
    return folder / CONFIG_NAME, _weights_in(folder, weights_names)


def load_weights(module: nn.Module, path: Path) -> None:
    """Fill a module from a safetensors file whose names and shapes must be exactly the module's.

    Raises:
        CheckpointError: the file is missing or damaged, or names or shapes differ; all of them are named.
    """
    module.load_state_dict(fitted(read_weights(path), wanted=module.state_dict(), path=path))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a safetensors file.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; a checkpoint is {CONFIG_NAME} and {WEIGHTS_NAME}") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is no safetensors file, or damaged: {error}") from error


def fitted(
    weights: Mapping[str, Tensor], *, wanted: Mapping[str, Tensor], path: str | os.PathLike[str]
) -> dict[str, Tensor]:
    """Weights in the precision of those wanted; names and shapes must be exactly theirs.

    Raises:
        CheckpointError: names or shapes differ; all of them are named.
    """
    problems = [
        *_named("missing", sorted(wanted.keys() - weights.keys())),
        *_named("not known", sorted(weights.keys() - wanted.keys())),
        *_named("of another shape", _misshapen(wanted, weights)),
    ]
    if problems:
        raise CheckpointError(f"{path} does not fit its configuration: {'; '.join(problems)}")
    return {name: weight.to(wanted[name].dtype) for name, weight in weights.items()}


def save_checkpoint(module: nn.Module, config: JsonConfig, folder: str | os.PathLike[str]) -> None:
    """Write configuration and weights into a folder, made if it is not there.

    Raises:
        OSError: the folder or a file cannot be written.
    """
    folder = Path(folder)
    save_weights(module, folder)
    with atomic_path(folder / CONFIG_NAME) as temporary:
        config.to_json_file(temporary)


def save_weights(module: nn.Module, folder: Path) -> None:
    """Write a module's weights into a folder, made if it is not there.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / WEIGHTS_NAME) as temporary:
        weights = {name: weight.detach().cpu().contiguous() for name, weight in module.state_dict().items()}
        write_tensors(weights, temporary)


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file with the permissions that new files have here.

    Raises:
        OSError: the file cannot be written.
    """
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    save_file(dict(tensors), path, metadata={"format": "pt"})
    path.chmod(mode)  # safetensors makes files that their owner alone may read


def push_folder(folder: Path, repo_id: str, *, private: bool, token: str | None, message: str) -> str:
    """Upload a checkpoint folder to the hub, making the repository if needed; its address.

    Raises:
        CheckpointError: the hub refused.
    """
    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise CheckpointError(f"cannot push to {repo_id}: {str(error).strip().splitlines()[0]}") from error


def _weights_in(folder: Path, names: Sequence[str]) -> Path:
    there = [folder / name for name in names if (folder / name).exists()]
    return there[0] if there else folder / names[0]


def _named(kind: str, names: list[str]) -> list[str]:
    if not names:
        return []
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return [f"{len(names)} {kind}: {shown}"]


def _misshapen(wanted: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{name} {tuple(got[name].shape)} instead of {tuple(weight.shape)}"
        for name, weight in wanted.items()
        if name in got and got[name].shape != weight.shape
    ]
