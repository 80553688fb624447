"""``autogaze export``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from autogaze.commands.words import argument


@dataclass(frozen=True, kw_only=True)
class ExportCommand:
    """Write a gaze model as ONNX or torch.export programs, for machines without autogaze or torch.

    Writes encoder, decoder_step and gaze.json. The loop around them, choosing patches and stopping, is numpy:
    examples/gaze_with_onnxruntime.py.
    """

    model: str = "bundled"
    """A checkpoint folder or .safetensors file, bundled, or a hub id."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("exported")
    """Folder for the files."""
    format: Literal["onnx", "torch"] = "onnx"
    """ONNX files for onnxruntime and others, or .pt2 files for torch.export.load."""
    overwrite: Annotated[bool, argument(None)] = False
    """Replace an export that is there already."""
    json: Annotated[bool, argument(None)] = False
    """Print one JSON object and nothing else."""
    quiet: Annotated[bool, argument(None)] = False
    """Print nothing but errors."""
    debug: Annotated[bool, argument(None)] = False
    """Show where an error comes from."""

    def run(self) -> int:
        """Export it."""
        from autogaze import terminal
        from autogaze.export import export_gaze_model

        done = export_gaze_model(self.model, self.out, format=self.format, overwrite=self.overwrite)
        if self.json:
            plain = {
                "folder": str(done.folder),
                "files": done.files,
                "num_bytes": done.num_bytes,
                "difference": done.difference,
            }
            terminal.say(json.dumps(plain, indent=1))
        elif not self.quiet:
            where = done.folder / f"{{{','.join(done.files)}}}"
            terminal.say(
                f"{self.model}: {done.num_bytes / 1e6:.1f} MB, outputs at most {done.difference:.1g} away from the "
                f"network's → {where}"
            )
        return 0
