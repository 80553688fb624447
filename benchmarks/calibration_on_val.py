"""How well calibrated thresholds are kept on clips of other sources; writes ``calibration_on_val.json`` beside itself.

    python benchmarks/calibration_on_val.py FOLDER --work CACHE [--levels 0.007,0.01,...] [--fit-every 2]

The clips are those of ``autogaze calibrate FOLDER``: 16 frames of each video brought to one tile, a source being all
files that differ in the number at the end of their name alone. All clips are gazed at once for each level, which is
kept in CACHE. A calibration is then fitted on some of the clips and every ``--fit-every``-th level, and judged on the
other clips: what stopping at a level between two of *all* levels does is read off the line between them, in logarithms.

- "halves": the sources are dealt into two halves of clips, many times.
- "leave one source out": every clip is judged by the calibration of all other sources.

"bare" stops at the threshold itself, "stairs" at the largest level whose promise is at most the threshold, "line" at
the level on the line between two promises, as the package does. "above" is the share of frames whose true loss is above
the threshold, on average over clips, of which α was asked for; "kept" the share of patches. A threshold that a
calibration refuses is counted in "refused" and in nothing else. Ranges are standard deviations over the repeats.
"""

from __future__ import annotations

import argparse
import json
import pickle
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autogaze.evaluation.calibrate import LevelRun, promises_of, run_level
from autogaze.evaluation.calibration_clips import ClipSet, read_clips
from autogaze.loading import checkpoint_path
from autogaze.models.autogaze import AutoGaze
from autogaze.models.autogaze.calibration import Calibration, weights_fingerprint
from autogaze.summary import versions
from autogaze.video import find_sources

THRESHOLDS = (0.050, 0.035, 0.025, 0.018)
LEVELS = tuple(round(0.0062 * 1.12**step, 6) for step in range(20))
ALPHA, RATIO = 0.1, 0.75
WAYS = ("bare", "stairs", "line")
Floats = NDArray[np.float64]

# Shape letters: M levels, n clips.


@dataclass(frozen=True, kw_only=True)
class Row:
    """How one way of choosing a level kept one threshold."""

    split: str
    way: str
    threshold: float
    clips_fitted_on: float
    above: float
    above_deviation: float | None
    kept: float
    kept_deviation: float | None
    level: float
    refused: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Passes:
    """All clips at all levels."""

    runs: list[LevelRun]
    sources: NDArray[np.int64]
    fit_every: int

    @cached_property
    def log_levels(self) -> Floats:
        """(M,) what levels are read off along."""
        return np.log([run.level for run in self.runs])

    @cached_property
    def kept_Mn(self) -> Floats:
        """Share of patches kept."""
        return np.array([[k.mean() / p for k, p in zip(r.kept, r.patches, strict=True)] for r in self.runs])

    @cache  # noqa: B019
    def above_Mn(self, threshold: float) -> Floats:
        """Share of frames above a threshold."""
        return np.array([[(loss > threshold).mean() for loss in run.loss] for run in self.runs])

    def fitted(self, clips: Sequence[int]) -> Calibration:
        """The calibration of some clips, at every ``fit_every``-th level from the strictest, and at the loosest."""
        some = self.runs[: -1 : self.fit_every] + self.runs[-1:]
        runs = [
            replace(
                run,
                loss=tuple(run.loss[clip] for clip in clips),
                predicted=tuple(run.predicted[clip] for clip in clips),
                kept=tuple(run.kept[clip] for clip in clips),
                patches=tuple(run.patches[clip] for clip in clips),
            )
            for run in some
        ]
        return Calibration(
            alpha=ALPHA, reconstructor="canvas", loss_unit="", weights="", positions="", ratio=RATIO, mode="resize",
            clips=len(clips), frames=0, clips_sha256="", seed=0, promises=promises_of(runs, alpha=ALPHA), versions={},
        )  # fmt: skip

    def outcome(self, level: float, threshold: float, clips: Sequence[int]) -> tuple[float, float]:
        """Share of frames above the threshold and share of patches kept, on average over clips."""
        above_Mn = self.above_Mn(threshold)[:, clips]
        kept = np.exp(np.interp(np.log(level), self.log_levels, np.log(self.kept_Mn[:, clips].mean(axis=1))))
        return float(np.interp(np.log(level), self.log_levels, above_Mn.mean(axis=1))), float(kept)

    def halves(self, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        """Clips to fit on and to judge by, of different sources."""
        size = np.bincount(self.sources)
        order = rng.permutation(len(size))
        last = int(np.searchsorted(np.cumsum(size[order]), len(self.sources) / 2))
        first = np.isin(self.sources, order[:last])
        return np.flatnonzero(first).tolist(), np.flatnonzero(~first).tolist()

    def left_out(self) -> Iterator[tuple[list[int], list[int]]]:
        """All clips but those of one source, and those."""
        for source in np.unique(self.sources):
            mine = self.sources == source
            yield np.flatnonzero(~mine).tolist(), np.flatnonzero(mine).tolist()


def level_of(way: str, calibration: Calibration, threshold: float) -> float | None:
    """Where frames end; None if the calibration refuses the threshold."""
    if way == "bare":
        return threshold
    if threshold < calibration.lowest_threshold:
        return None
    if way == "line":
        return calibration.level(threshold)
    promises = calibration.promises
    return promises[bisect_right([promise.threshold for promise in promises], threshold) - 1].level


def measure(split: str, passes: Passes, parts: Sequence[tuple[list[int], list[int]]], *, pool: bool) -> list[Row]:
    """One row for each way and threshold; ``pool``: the parts are of one whole, and clips and not parts are counted."""
    fitted = [passes.fitted(fit) for fit, _ in parts]
    rows = []
    for way in WAYS:
        for threshold in THRESHOLDS:
            levels = [level_of(way, calibration, threshold) for calibration in fitted]
            told = [
                (*passes.outcome(level, threshold, rest), level, len(rest) if pool else 1, len(fit))
                for level, (fit, rest) in zip(levels, parts, strict=True)
                if level is not None
            ]
            if not told:
                continue
            above, kept, level, weight, fit = map(np.array, zip(*told, strict=True))
            rows.append(
                Row(
                    split=split,
                    way=way,
                    threshold=threshold,
                    clips_fitted_on=float(fit.mean()),
                    above=float(np.average(above, weights=weight)),
                    above_deviation=None if pool else float(above.std()),
                    kept=float(np.average(kept, weights=weight)),
                    kept_deviation=None if pool else float(kept.std()),
                    level=float(np.exp(np.log(level).mean())),
                    refused=levels.count(None) / len(levels),
                )
            )
    return rows


def read_passes(
    model: AutoGaze, clips: ClipSet, levels: Sequence[float], work: Path
) -> tuple[list[LevelRun], dict[str, float]]:
    """A run for each level, from the cache where it is there, and the seconds those took that were not."""
    folder = work / f"{weights_fingerprint(model)[7:19]}-{clips.sha256()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    runs, seconds = [], {}
    for level in sorted(levels):
        path = folder / f"{level:.6f}.pickle"
        if not path.exists():
            start = time.perf_counter()
            path.write_bytes(pickle.dumps(run_level(model, clips, level=level, ratio=RATIO)))
            seconds[f"{level:g}"] = time.perf_counter() - start
            print(f"level {level:g}: {seconds[f'{level:g}']:.0f} s", flush=True)
        runs.append(pickle.loads(path.read_bytes()))
    return runs, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--checkpoint", default="bundled")
    parser.add_argument("--work", type=Path, required=True, help="where passes are kept")
    parser.add_argument("--levels", default=",".join(map(str, LEVELS)))
    parser.add_argument("--fit-every", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    model = AutoGaze.from_pretrained(checkpoint_path(arguments.checkpoint) or arguments.checkpoint, calibrated=False)
    videos = find_sources([arguments.folder])
    clips = read_clips(videos, grid=model.grid, clip_frames=model.config.max_num_frames)
    runs, seconds = read_passes(model, clips, [float(level) for level in arguments.levels.split(",")], arguments.work)
    _, sources = np.unique([Path(video).stem.rpartition("_")[0] for video in videos], return_inverse=True)
    passes = Passes(runs=runs, sources=sources, fit_every=arguments.fit_every)
    rng = np.random.default_rng(0)
    rows = measure("halves", passes, [passes.halves(rng) for _ in range(arguments.repeats)], pool=False)
    rows += measure("leave one source out", passes, list(passes.left_out()), pool=True)
    whole = passes.fitted(range(len(clips)))
    found = {
        "alpha": ALPHA,
        "weights": weights_fingerprint(model),
        "clips": len(clips),
        "sources": int(sources.max()) + 1,
        "clips_sha256": clips.sha256(),
        "repeats": arguments.repeats,
        "levels": [run.level for run in runs],
        "levels_fitted": [promise.level for promise in whole.promises],
        "thresholds_promised_by_all_clips": [promise.threshold for promise in whole.promises],
        "seconds_of_new_passes": seconds,
        "versions": versions(),
        "rows": [asdict(row) for row in rows],
    }
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(
            f"{row.split:22} {row.way:7} {row.threshold:.3f}  above {row.above:6.2%}  kept {row.kept:6.2%}  "
            f"level {row.level:.4f}  refused {row.refused:.0%}"
        )


if __name__ == "__main__":
    main()
