"""``autogaze bench``."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from autogaze.commands.words import argument, listed, ratios
from autogaze.errors import AutoGazeError


@dataclass(frozen=True, kw_only=True)
class BenchCommand:
    """Measure what gazing costs on this machine: latency, throughput, memory, and where the time goes.

    Writes bench.json, with every sample, and bench.png. The selectors take turns on one video, a gaze model also in the
    naive loop: decoding as the published code does it, for comparison.
    """

    video: Annotated[str | None, tyro.conf.Positional, argument("[VIDEO]")] = None
    """A video, an image folder or an address; without it a short clip is drawn and encoded on the spot."""
    model: Annotated[str | None, argument("NAME[,NAME...]")] = None
    """Selectors without weights (info tells about each), checkpoint folders or .safetensors files, or hub ids; the
    default is replenish, bundled, and every other selector without weights that works on any video."""
    ratio: Annotated[str | None, argument("SHARE[,SHARE...]")] = None
    """Most patches of a frame to keep, above 0 and at most 1; without it each has its own limits."""
    tiles: Annotated[bool, argument(None)] = False
    """Cover the frame with tiles pixel for pixel (the default)."""
    resize: Annotated[bool, argument(None)] = False
    """Stretch one tile over the whole frame: fast and coarse."""
    no_naive: Annotated[bool, argument(None)] = False
    """Leave out the naive loop."""
    frames: Annotated[int, tyro.conf.arg(metavar="COUNT")] = 32
    """How many frames, from the first on, to gaze at; rounded up to whole clips of 16."""
    repeats: Annotated[int, tyro.conf.arg(metavar="COUNT")] = 5
    """Time each selector so often, after one clip to warm up."""
    threads: Annotated[int | None, argument("COUNT")] = None
    """Threads of torch and OpenCV; without it as many as torch takes by itself."""
    device: Annotated[str | None, argument("DEVICE")] = None
    """Where a learned model runs: cpu, cuda, cuda:1, mps."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("bench-results")
    """Folder for the files."""
    overwrite: Annotated[bool, argument(None)] = False
    """Replace a benchmark that is there already."""
    json: Annotated[bool, argument(None)] = False
    """Print what is in bench.json, and nothing else."""
    quiet: Annotated[bool, argument(None)] = False
    """Print nothing but errors and warnings."""
    debug: Annotated[bool, argument(None)] = False
    """Show where an error comes from."""

    def run(self) -> int:
        """Measure, write, and tell."""
        from autogaze import terminal
        from autogaze.benching.files import claim, write_files
        from autogaze.benching.run import bench
        from autogaze.benching.table import comparisons, stage_table, time_table

        if self.tiles and self.resize:
            raise AutoGazeError("--tiles and --resize exclude each other; give one of them")
        claim(self.out, overwrite=self.overwrite)
        with terminal.CountBar(visible=sys.stderr.isatty() and not self.quiet) as bar:
            report = bench(
                self.video,
                models=None if self.model is None else listed("--model", self.model),
                ratio=ratios(self.ratio),
                mode="resize" if self.resize else "tiles",
                naive=not self.no_naive,
                frames=self.frames,
                repeats=self.repeats,
                threads=self.threads,
                device=self.device,
                on_progress=lambda step, done, total: bar.update(
                    step, done=done, total=total, words=f"{done} of {total}"
                ),
            )
        files, missing = write_files(self.out, report)
        if self.json:
            terminal.say(json.dumps(report.to_json(), indent=1))
        elif not self.quiet:
            terminal.say(report.headline())
            terminal.show(time_table(report))
            terminal.show(stage_table(report))
            for line in comparisons(report):
                terminal.say(line)
            terminal.say(" ".join(["→", *(str(self.out / file) for file in files)]))
        for warning in (*report.warnings, *missing):
            terminal.complain(f"warning: {warning}")
        return 0
