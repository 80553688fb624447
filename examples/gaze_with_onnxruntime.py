"""Gaze at a video with a model that ``autogaze export`` wrote: onnxruntime and numpy, without torch and autogaze.

Run ``python examples/gaze_with_onnxruntime.py VIDEO --model exported [--threshold LOSS] [--ratio SHARE] [--out FILE]``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import av
import numpy as np
import onnxruntime
from PIL import Image


class OnnxGaze:
    """An exported gaze model on its way through one video."""

    def __init__(self, folder: Path) -> None:
        self.about = json.loads((folder / "gaze.json").read_text())
        self.encoder, self.decoder = (
            onnxruntime.InferenceSession(folder / self.about[name]["file"]) for name in ("encoder", "decoder_step")
        )
        self.frames_seen = 0

    def level(self, threshold: float) -> float:
        """The predicted loss at which a frame must end to keep a threshold."""
        table = self.about["calibration"]
        if table is None:
            return threshold
        if threshold < table["thresholds"][0]:
            raise SystemExit(f"the least threshold this model can promise is {table['thresholds'][0]:.4g}")
        return float(np.exp(np.interp(np.log(threshold), np.log(table["thresholds"]), np.log(table["levels"]))))

    def step(self, frame: np.ndarray, *, level: float | None, ratio: float) -> list[int]:
        """The patches kept of the next (S, S, 3) uint8 frame, in the order they were chosen."""
        if self.frames_seen % self.about["clip_frames"] == 0:  # every clip starts with nothing remembered
            self.conv, self.cache = self._nothing("encoder"), self._nothing("decoder_step")
            self.unread, self.length = [], 0
        self.frames_seen += 1
        visual, *conv = self.encoder.run(None, {"frames": frame[None], **self.conv})
        self.conv = dict(zip(self.conv, conv, strict=True))
        free, kept = np.ones(self.about["num_patches"], bool), []
        most = max(1, int(ratio * len(free) + 1e-9))
        tokens = [*self.unread, *(self.about["first_visual_token"] + np.arange(self.about["visual_tokens"]))]
        start, group = self.length, self.about["group_size"]
        in_a_frame = start + len(tokens) - group  # where published checkpoints place the groups after the first
        while True:
            logits, loss = self._read(tokens, visual[0], start)
            self.unread, good_enough = [], False
            for row in range(min(group, most - np.sum(~free))):
                patch = int(np.where(free, logits[row, : len(free)], -np.inf).argmax())
                if level is None or free.all() or loss[row] > np.float32(level):
                    self.unread.append(patch)
                else:
                    good_enough = True
                free[patch] = False
            kept += self.unread
            if good_enough or np.sum(~free) == most:
                return kept
            tokens, start = self.unread, in_a_frame if self.about["positions"] == "reference" else self.length

    def _read(self, tokens: list[int], visual: np.ndarray, start: int) -> tuple[np.ndarray, np.ndarray]:
        """Let the decoder read on: scores of the next patches, and the loss it predicts before each of them."""
        inputs = {"token": np.array(tokens), "visual": visual, "position": start + np.arange(len(tokens))}
        logits, loss, *cache = self.decoder.run(None, {**inputs, **self.cache})
        self.cache, self.length = dict(zip(self.cache, cache, strict=True)), self.length + len(tokens)
        return logits, loss

    def _nothing(self, program: str) -> dict[str, np.ndarray]:
        """What is remembered before the first frame of a clip."""
        past = [port for port in self.about[program]["inputs"] if port["name"].startswith("past_")]
        return {port["name"]: np.zeros([0 if n == "past" else n for n in port["shape"]], np.float32) for port in past}


def main() -> None:
    """Do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("--model", type=Path, default=Path("exported"), help="what autogaze export wrote")
    parser.add_argument("--threshold", type=float, help="loss at which a frame ends")
    parser.add_argument("--ratio", type=float, help="most patches of a frame to keep, as a share")
    parser.add_argument("--frames", type=int, help="end after this many")
    parser.add_argument("--out", type=Path, help="write the patches of every frame into this JSON file")
    options = parser.parse_args()

    model = OnnxGaze(options.model)
    threshold, ratio = options.threshold, options.ratio
    if threshold is None and ratio is None:
        threshold, ratio = model.about["threshold"], model.about["ratio"]
    level = None if threshold is None else model.level(threshold)
    ratios = np.resize(1.0 if ratio is None else ratio, model.about["clip_frames"])
    size = (model.about["frame_px"], model.about["frame_px"])
    kept: list[list[int]] = []
    with av.open(options.video) as container:
        for number, picture in enumerate(container.decode(video=0)):
            if number == options.frames:
                break
            frame = np.asarray(picture.to_image().resize(size, Image.Resampling.BILINEAR))
            kept.append(model.step(frame, level=level, ratio=float(ratios[number % len(ratios)])))
            print(f"frame {number}: {len(kept[-1])} patches, the first are {kept[-1][:6]}")
    print(f"{sum(map(len, kept)) / (len(kept) * model.about['num_patches']):.2%} of the patches kept")
    if options.out:
        options.out.write_text(json.dumps(kept))


if __name__ == "__main__":
    main()
