"""What README and docs say is true: their Python prints what stands below it, their commands and links are real."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

import autogaze
from autogaze import cli
from autogaze.commands.label import LabelCommand
from autogaze.training.grpo import GRPOSettings
from autogaze.training.ntp import NTPSettings
from autogaze.training.refiner import RefinerSettings
from autogaze.training.stop_head import StopHeadSettings
from autogaze.training.video_mae import VideoMAESettings

ROOT = Path(__file__).parents[1]
CARDS = sorted((ROOT / "src" / "autogaze" / "checkpoints").glob("*/README.md"))
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *CARDS,
]
TOLERANCE = 0.02
"""Relative; another build of FFmpeg may round colours otherwise, and a few gazes with them."""

# A block of Python, and the output that stands right below it, if any.
_BLOCK = re.compile(r"(<!-- not run.*?-->\n)?```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.S)
_COMMANDS = re.compile(r"```(?:console|sh|bash)\n(.*?)```", re.S)
_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


def page_name(page: Path) -> str:
    return f"card of {page.parent.name}" if page in CARDS else page.name


@dataclass(frozen=True, kw_only=True)
class Block:
    """A piece of Python on a page."""

    code: str
    expected: str
    line: int


def blocks(text: str) -> list[Block]:
    """The pieces of Python that are to be run."""
    return [
        Block(code=found[2], expected=found[3] or "", line=text[: found.start(2)].count("\n") + 1)
        for found in _BLOCK.finditer(text)
        if not found[1]
    ]


def same(printed: str, expected: str) -> bool:
    """Whether two outputs have the same words and nearly the same numbers."""
    if _NUMBER.sub("#", " ".join(printed.split())) != _NUMBER.sub("#", " ".join(expected.split())):
        return False
    pairs = zip(_NUMBER.findall(printed), _NUMBER.findall(expected), strict=True)
    return all(
        math.isclose(float(a.replace(",", "")), float(b.replace(",", "")), rel_tol=TOLERANCE, abs_tol=1e-6)
        for a, b in pairs
    )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like the project's to code that reads it."""
    for name in ("examples", "tests", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")], ids=page_name
)
def test_python_prints_what_stands_below_it(page: Path, project: Path) -> None:
    space: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page.read_text(encoding="utf-8")):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), space)
        assert same(printed.getvalue(), block.expected), f"{page.name}:{block.line} printed\n{printed.getvalue()}"


def test_outputs_are_told_apart() -> None:
    assert same("5 of 1,000 kept (0.5%)\n", "5 of 1,001 kept (0.5%)")
    assert not same("5 kept", "6 kept")
    assert not same("5 kept", "5 left")
    assert not same("5", "5 6")
    assert same("[1, 2]\n  3", "[1, 2] 3")


def commands(text: str) -> list[str]:
    """Lines of the shell blocks that call autogaze."""
    lines = [line.split(" #")[0].strip() for block in _COMMANDS.findall(text) for line in block.splitlines()]
    return [line for line in lines if line.startswith("autogaze ") and "|" not in line]


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_can_be_parsed(page: Path) -> None:
    for line in commands(page.read_text(encoding="utf-8")):
        if line != "autogaze --version":
            cli._parse(shlex.split(line)[1:])


def section(verb: str) -> str:
    """What docs/command-line.md says of a verb."""
    text = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    return text.split(f"## autogaze {verb}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize(
    ("verb", "command"),
    [
        ("gaze", cli.GazeCommand),
        ("reconstruct", cli.ReconstructCommand),
        ("encode", cli.EncodeCommand),
        ("evaluate", cli.EvaluateCommand),
        ("evaluate behaviour", cli.BehaviourCommand),
        ("calibrate", cli.CalibrateCommand),
        ("watch", cli.WatchCommand),
        ("bench", cli.BenchCommand),
        ("label", LabelCommand),
        ("export", cli.ExportCommand),
        ("train", NTPSettings),
        ("train", StopHeadSettings),
        ("train", GRPOSettings),
        ("train", RefinerSettings),
        ("train", VideoMAESettings),
    ],
)
def test_every_option_is_explained(verb: str, command: type) -> None:
    text = section(verb)
    for field in fields(command):
        option = "--" + field.name.replace("_", "-")
        assert field.name in ("source", "sources", "video", "videos") or f"`{option}" in text, f"{verb} {option}"


def test_every_public_name_is_explained() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name in autogaze.__all__:
        assert re.search(rf"\b{name}\b", text), name


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", page.read_text(encoding="utf-8")):
        target, _, anchor = "".join(link).partition("#")
        if target.startswith("http"):
            continue
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page.name} links to {target}#{anchor}"


def test_the_figures_are_those_of_the_benchmarks() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "make_figures.py", "--check"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


EXAMPLES = {
    "gaze_a_video.py": ["examples/sample.mp4", "--frames", "4", "--out", "results"],
    "stream_camera.py": ["examples/sample.mp4", "--frames", "5"],
    "patches_for_another_vit.py": ["examples/sample.mp4", "--frames", "4"],
}


def test_every_example_is_run() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == {
        *EXAMPLES,
        "make_sample.py",
        "gaze_with_onnxruntime.py",  # by test_export.py, which has a model for it
    }


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name: str, project: Path) -> None:
    done = subprocess.run(
        [sys.executable, f"examples/{name}", *EXAMPLES[name]],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) >= 3
