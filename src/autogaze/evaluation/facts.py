"""What a result depends on: versions, machine, and who exactly chose and rebuilt."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

from autogaze.extras import require
from autogaze.grid import PatchGrid
from autogaze.loading import checkpoint_fingerprint
from autogaze.native.library import state
from autogaze.summary import versions

_CPU_INFO = Path("/proc/cpuinfo")


def all_versions() -> dict[str, str]:
    """Version of each package that an evaluation's figures depend on.

    Raises:
        ImportError: OpenCV is not installed (extra ``evaluate``).
    """
    return {**versions(), "opencv": require("cv2", extra="evaluate").__version__}


def machine(device: str | None) -> dict[str, Any]:
    """What the seconds were measured on."""
    accelerator = None
    if device is not None and torch.device(device).type == "cuda":
        accelerator = torch.cuda.get_device_name(torch.device(device))
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": device or "cpu",
        "accelerator": accelerator,
        "native": state(),
    }


def _processor() -> str:
    try:
        lines = _CPU_INFO.read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def identity(thing: object, *, name: str, asked: object) -> dict[str, Any]:
    """What tells a selector or a reconstructor from every other: class, options, weights and what steers them.

    Args:
        thing: the object.
        name: what it is called in results.
        asked: what the caller named; an object is told by its class alone.
    """
    return {
        "name": name,
        "asked": os.fspath(asked) if isinstance(asked, (str, os.PathLike)) else None,
        "kind": f"{type(thing).__module__}.{type(thing).__qualname__}",
        "options": _options(thing),
        "weights_sha256": weights_sha256(thing),
        "configuration": configuration(thing),
    }


def checkpoint_facts(path: Path | None) -> dict[str, str] | None:
    """Where a checkpoint lies and what it was when it was read; None for what has no file."""
    if path is None:
        return None
    return {"path": str(path), "fingerprint": checkpoint_fingerprint(path) or "gone"}


def weights_sha256(thing: object) -> str | None:
    """SHA-256 over names, types, shapes and values of all weights that an object holds; None if it holds none."""
    modules = _modules(thing)
    if not modules:
        return None
    digest = hashlib.sha256()
    for attribute, module in sorted(modules.items()):
        for name, weight in sorted(module.state_dict().items()):
            if not isinstance(weight, torch.Tensor):
                continue
            plain = weight.detach().cpu().contiguous()
            digest.update(f"{attribute.lstrip('_')}.{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def configuration(thing: object) -> dict[str, Any] | None:
    """The configuration and the calibration of the network that an object holds, as plain values; None without one."""
    told: dict[str, Any] = {}
    for _, module in sorted(_modules(thing).items()):
        config, calibration = getattr(module, "config", None), getattr(module, "calibration", None)
        told |= {"config": config.to_dict()} if config is not None else {}
        told |= {"calibration": calibration.to_json()} if calibration is not None else {}
    plain: dict[str, Any] | None = json.loads(json.dumps(told, default=str)) or None
    return plain


def _modules(thing: object) -> dict[str, torch.nn.Module]:
    if isinstance(thing, torch.nn.Module):
        return {"": thing}
    return {name: value for name, value in _attributes(thing).items() if isinstance(value, torch.nn.Module)}


def _attributes(thing: object) -> dict[str, Any]:
    return dict(getattr(thing, "__dict__", {}))


def _options(thing: object) -> dict[str, Any]:
    """The public attributes of an object that are plain values."""
    options: dict[str, Any] = {}
    for name, value in sorted(_attributes(thing).items()):
        if name.startswith("_") or name == "name":
            continue
        if isinstance(value, PatchGrid):
            options[name] = {"scales_px": list(value.scales_px), "patch_px": value.patch_px}
        elif value is None or isinstance(value, (str, int, float, bool)):
            options[name] = value
    return options
