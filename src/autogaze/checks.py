"""Whether this machine has what autogaze needs: versions, codecs, devices and optional packages."""

from __future__ import annotations

import platform
import re
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np

from autogaze import __version__
from autogaze.loading import BUNDLED_FOLDER
from autogaze.video import open_video
from autogaze.video_writer import VideoWriter

MIN_PYTHON = (3, 11)
CODECS: tuple[tuple[str, Literal["r", "w"]], ...] = (
    ("h264", "r"),
    ("hevc", "r"),
    ("vp9", "r"),
    ("av1", "r"),
    ("libx264", "w"),
)
"""Codecs that videos of today use, and the one that overlays are best written with."""
_CODEC_ADVICE = "install PyAV from its wheels: pip install --only-binary av -U av"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    group: str
    """What kind of thing it is."""
    name: str
    """What was looked at."""
    found: str
    """What was there."""
    ok: bool
    """Whether it works."""
    required: bool
    """Whether autogaze cannot do its work without it."""
    advice: str = ""
    """What to do if it is not ok."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """All checks of an environment."""

    checks: tuple[Check, ...]
    """In the order in which people read them."""

    @property
    def ok(self) -> bool:
        """Whether everything required works."""
        return all(check.ok for check in self.checks if check.required)

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks]}


def check_environment() -> Report:
    """Look at Python, packages, codecs, devices and extras; imports torch.

    Changes nothing but the user's cache, where the code is that is compiled for this processor.
    """
    return Report(checks=(_python(), *_packages(), *_codecs(), _round_trip(), *_devices(), *_extras(), _bundled()))


def _python() -> Check:
    return Check(
        group="python",
        name="python",
        found=f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        ok=sys.version_info >= MIN_PYTHON,
        required=True,
        advice=f"install Python {'.'.join(map(str, MIN_PYTHON))} or newer",
    )


def _packages() -> list[Check]:
    checks = [Check(group="package", name="autogaze", found=__version__, ok=True, required=True)]
    for name, minimum, extra in _requirements():
        if extra is None:
            checks.append(_package(name, minimum, group="package", required=True, advice=f"pip install -U {name}"))
    return checks


def _extras() -> list[Check]:
    return [
        _package(name, minimum, group=f"extra {extra}", required=False, advice=f"pip install 'autogaze[{extra}]'")
        for name, minimum, extra in _requirements()
        if extra not in (None, "dev", "test") and name != "autogaze"
    ]


def _package(name: str, minimum: str, *, group: str, required: bool, advice: str) -> Check:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(group=group, name=name, found="not installed", ok=False, required=required, advice=advice)
    return Check(
        group=group,
        name=name,
        found=version,
        ok=_numbers(version) >= _numbers(minimum),
        required=required,
        advice=f"{advice} (needs {minimum} or newer)",
    )


def _requirements() -> list[tuple[str, str, str | None]]:
    """(package, oldest version, extra or None) of everything that the installed package declares."""
    try:
        lines = metadata.requires("autogaze") or []
    except metadata.PackageNotFoundError:  # run from its source, not installed
        lines = []
    requirements = []
    for line in lines:
        declared, _, marker = line.partition(";")
        name = re.match(r"[\w.-]+", declared)
        minimum = re.search(r">=\s*([\d.]+)", declared)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
        if name:
            requirements.append((name[0], minimum[1] if minimum else "0", extra[1] if extra else None))
    return requirements


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3])


def _codecs() -> list[Check]:
    ffmpeg = ".".join(map(str, av.library_versions["libavcodec"]))
    checks = [Check(group="codec", name="ffmpeg libavcodec", found=ffmpeg, ok=True, required=True)]
    for name, use in CODECS:
        try:
            found, ok = av.Codec(name, use).long_name, True
        except ValueError:
            found, ok = "missing", False
        checks.append(
            Check(
                group="codec",
                name=f"{'read' if use == 'r' else 'write'} {name}",
                found=found,
                ok=ok,
                required=name == "h264",
                advice=_CODEC_ADVICE,
            )
        )
    return checks


def _round_trip() -> Check:
    """Write a video and read it back."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "check.mp4"
            with VideoWriter(path, fps=25, height_px=32, width_px=48) as writer:
                writer.write(np.full((2, 32, 48, 3), 128, np.uint8))
            with open_video(path) as reader:
                frames = sum(len(window) for window in reader)
        found, ok = f"{frames} of 2 frames came back", frames == 2
    except Exception as error:  # whatever is wrong with the codecs is what this check is for
        found, ok = f"{type(error).__name__}: {error}", False
    return Check(group="codec", name="write and read a video", found=found, ok=ok, required=True, advice=_CODEC_ADVICE)


def _devices() -> list[Check]:
    import torch

    from autogaze.native.library import library, state

    checks = [
        Check(group="device", name="cpu", found=f"{torch.get_num_threads()} threads", ok=True, required=True),
        Check(
            group="device",
            name="code compiled for it",
            found=state(),
            ok=library() is not None,
            required=False,
            advice="gazing takes twice as long without; if it is a compiler that is missing, install gcc",
        ),
    ]
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        found = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        checks.append(Check(group="device", name=f"cuda:{number}", found=found, ok=True, required=False))
    if torch.backends.mps.is_available():
        checks.append(Check(group="device", name="mps", found="Apple GPU", ok=True, required=False))
    return checks


def _bundled() -> Check:
    there = BUNDLED_FOLDER.is_dir()
    return Check(
        group="model",
        name="bundled checkpoint",
        found="there" if there else "none in this version",
        ok=there,
        required=False,
        advice="use replenish, or the path or hub id of a checkpoint",
    )
