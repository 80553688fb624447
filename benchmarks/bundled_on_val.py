"""Patches that gaze models need for the same loss as other selectors, under several reconstructors; writes JSON.

    python benchmarks/bundled_on_val.py FOLDER [--checkpoint bundled DIR ...] [--reconstructor canvas refined] \\
        [--every 3] [--cache FILE] [--out FILE]

Two kinds of clips, all resized to 224 × 224 with Pillow's bilinear filter and looked at as one tile:

* "short": the first 16 frames of a video, every second one where it has at least 32. Every selector.
* "long": the first frames, up to 64, of every second of those videos. A gaze model starts anew every 16 frames, and
  replenish goes on: what that costs. "replenish anew" is replenish with the model's short memory.

A selector is measured at several limits: "threshold" ends each frame at a loss (true for replenish, the model's bare
prediction), "calibrated" at one that went through the checkpoint's calibration, "ratio" gives every frame the same
ceiling, "random at counts of replenish" draws as many patches in every frame as replenish takes at a threshold.
Motion vectors are those of the video as it was coded. kept = gazes over all patches of all frames; loss = mean over
frames in the reconstructor's unit; PSNR is of the mean squared error of all clips. How equal losses are compared is
told in ``equal_loss.py``. "above" is the share of frames that end above the threshold asked for, with an interval
that knows that frames of a clip go together; "stated" is the mean of what selectors said of the loss after a frame's
last gaze.

What was chosen and judged is kept in the cache: the same command goes on where it was interrupted, and another
checkpoint or reconstructor is measured beside what is known.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from chosen import ANEW, AT_COUNTS, Chosen, Job, Setting, Store, keys_of, measure, reconstructor, reconstructor_key
from equal_loss import Curve, compare
from replenish_table import VIDEO_SUFFIXES

from autogaze.errors import PromiseError
from autogaze.evaluation.curves import psnr_of
from autogaze.evaluation.facts import all_versions, machine
from autogaze.evaluation.intervals import share_of
from autogaze.loading import checkpoint_path
from autogaze.models.autogaze.calibration import Calibration
from autogaze.names import result_names

REPLENISH, RANDOM = "replenish, threshold", "random, ratio"
LOSSES = (0.050, 0.035, 0.025, 0.018, 0.012)
"""At which patches are compared."""
CAP = 0.75
"""Ratio that stands beside the thresholds of a model, as everywhere in the package."""
LONG_EVERY = 2
"""Every n-th of the videos has a long clip."""
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31)}
"""glibc is to keep what networks free and ask for again: on a CPU that is half of the time of a refiner."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A selector, a limit, and how it is measured."""

    label: str
    """What the curve is called."""
    limit: float
    """The limit asked for."""
    setting: Setting
    """What is done."""

    @property
    def is_threshold(self) -> bool:
        """Whether frames are to end at the limit."""
        return self.label.endswith((", threshold", ", calibrated"))


def rows_of(checkpoints: dict[str, str], *, long: bool) -> list[Row]:
    """All curves of one kind of clips, limit by limit."""
    rows = [
        Row(label=REPLENISH, limit=limit, setting=Setting(selector="replenish", threshold=limit))
        for limit in ((0.100, 0.050, 0.018) if long else (0.100, 0.070, 0.050, 0.035, 0.025, 0.018, 0.012))
    ]
    name, limits = (ANEW, (0.100, 0.050, 0.018)) if long else (AT_COUNTS, (0.035, 0.025, 0.012))
    rows += [Row(label=name, limit=limit, setting=Setting(selector=name, threshold=limit)) for limit in limits]
    shares = {"random": (0.01, 0.04, 0.12, 0.35, 0.75)}
    shares |= dict.fromkeys(("uniform", "difference", "detail", "flow", "motion-vectors"), (0.04, 0.12, 0.35, 0.75))
    for selector, ratios in ({"random": (0.06, 0.2, 0.5)} if long else shares).items():
        rows += [Row(label=f"{selector}, ratio", limit=r, setting=Setting(selector=selector, ratio=r)) for r in ratios]
    for name, path in checkpoints.items():
        rows += _model_rows(name, path, long=long)
    return rows


def _model_rows(name: str, path: str, *, long: bool) -> Iterator[Row]:
    for limit in (0.070, 0.025, 0.010) if long else (0.070, 0.050, 0.035, 0.025, 0.018, 0.012, 0.008, 0.005):
        yield Row(label=f"{name}, threshold", limit=limit, setting=Setting(selector=path, ratio=CAP, threshold=limit))
    for ratio in () if long else (0.01, 0.03, 0.08, 0.20):
        yield Row(label=f"{name}, ratio", limit=ratio, setting=Setting(selector=path, ratio=ratio))
    calibration = Calibration.load(checkpoint_path(path) or path)
    for limit in () if long or calibration is None else (0.050, 0.035, 0.025):
        try:
            level = calibration.level(limit)
        except PromiseError:
            continue
        yield Row(label=f"{name}, calibrated", limit=limit, setting=Setting(selector=path, ratio=CAP, threshold=level))


def gather(jobs: Sequence[Job], *, store: Store, processes: int) -> None:
    """Measure what the store does not know."""
    wanted = [job for job in jobs if not _is_done(job)]
    print(f"{len(jobs) - len(wanted)} of {len(jobs)} clips are in {store.path}", flush=True)
    os.environ.update(KEEP_MEMORY)  # read when a process starts
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(measure, job): job for job in wanted}
        for number, future in enumerate(as_completed(futures), 1):
            store.add(future.result())
            print(f"{number} of {len(wanted)}: {futures[future].path.name}", flush=True)


def _is_done(job: Job) -> bool:
    judges = {reconstructor_key(name) for name in job.reconstructors}
    known = [job.known.get(key) for key in keys_of(job).values()]
    return all(one is not None and judges <= one.judged.keys() for one in known)


def section(rows: list[Row], jobs: list[Job], store: Store, reconstructors: Sequence[str]) -> dict[str, object]:
    """Everything about one kind of clips."""
    keys = [keys_of(job) for job in jobs]
    found = [store.of(key.values()) for key in keys]
    chosen = {row: [one[key[row.setting]] for one, key in zip(found, keys, strict=True)] for row in rows}
    told = {}
    for name in reconstructors:
        judge = reconstructor_key(name)
        curves = {}
        for label in dict.fromkeys(row.label for row in rows):
            of = [chosen[row] for row in rows if row.label == label]
            curves[label] = Curve(
                kept_LC=np.array([[one.kept for one in clips] for clips in of]),
                loss_LC=np.array([[np.mean(one.judged[judge].loss) for one in clips] for clips in of]),
            )
        told[name] = {
            "loss_unit": reconstructor(name).loss_unit,
            "limits": [limit_row(row, clips, judge) for row, clips in chosen.items()],
            "equal_loss": [
                asdict(one) for one in compare(curves, losses=LOSSES, baselines=(REPLENISH, RANDOM, AT_COUNTS, ANEW))
            ],
        }
    return {
        "clips": len(jobs),
        "frames": sum(len(one.count) for one in chosen[rows[0]]),
        "videos": [job.path.name for job in jobs],
        "reconstructors": told,
    }


def limit_row(row: Row, clips: Sequence[Chosen], judge: str) -> dict[str, object]:
    """Means over clips, and how a threshold was kept."""
    judged = [one.judged[judge] for one in clips]
    mse = float(np.mean([np.mean(one.mse) for one in judged]))
    told: dict[str, object] = {
        "selector": row.label,
        "limit": row.limit,
        "kept": float(np.mean([one.kept for one in clips])),
        "loss": float(np.mean([np.mean(one.loss) for one in judged])),
        "psnr_db": None if mse == 0 else psnr_of(mse),
    }
    if row.is_threshold:
        clip_N = np.repeat(np.arange(len(clips)), [len(one.loss) for one in judged])
        loss_N = np.concatenate([one.loss for one in judged])
        # What is exactly at the threshold may be above it by rounding.
        share = share_of(loss_N > row.limit + 1e-9, clip_N)
        stated = [said for one in clips for said in one.stated if said is not None]
        told |= {"above": share.rate, "above_interval": share.clustered}
        told["stated"] = float(np.mean(stated)) if stated else None
    return told


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoint", nargs="+", default=["bundled"], help="the bundled one, or folders")
    parser.add_argument("--reconstructor", nargs="+", default=["canvas", "refined"])
    parser.add_argument("--kind", nargs="+", choices=("short", "long"), default=["short", "long"])
    parser.add_argument("--every", type=int, default=1, help="use every n-th video")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cache", type=Path, help="file of what is known; beside --out if not given")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    begun_seconds = time.perf_counter()
    store = Store(arguments.cache or arguments.out.with_suffix(".cache.jsonl"))
    paths = sorted(p for p in arguments.folder.iterdir() if p.suffix in VIDEO_SUFFIXES)[:: arguments.every]
    names = dict(zip(result_names(arguments.checkpoint), arguments.checkpoint, strict=True))
    kinds: dict[str, tuple[list[Row], list[Job]]] = {}
    for kind in arguments.kind:
        long = kind == "long"
        rows = rows_of(names, long=long)
        settings = tuple(dict.fromkeys(row.setting for row in rows))
        asked = {"long": long, "settings": settings, "reconstructors": tuple(arguments.reconstructor)}
        jobs = [Job(path=path, known={}, **asked) for path in (paths[::LONG_EVERY] if long else paths)]
        kinds[kind] = rows, [Job(path=job.path, known=store.of(keys_of(job).values()), **asked) for job in jobs]
    gather([job for _, jobs in kinds.values() for job in jobs], store=store, processes=arguments.processes)
    result = {
        "machine": machine(None),
        "versions": all_versions(),
        "seconds": time.perf_counter() - begun_seconds,
        "checkpoints": list(names),
        **{kind: section(rows, jobs, store, arguments.reconstructor) for kind, (rows, jobs) in kinds.items()},
    }
    arguments.out.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    for kind in kinds:
        tell(kind, result[kind])


def tell(kind: str, found: dict) -> None:
    """The figures on the terminal."""
    for name, told in found["reconstructors"].items():
        print(f"\n{kind} clips ({found['clips']}), {name}")
        for row in told["limits"]:
            above = "" if "above" not in row else f"  above {row['above']:.1%} ({row['above_interval'][0]:.1%} to "
            above += "" if "above" not in row else f"{row['above_interval'][1]:.1%})  stated {row['stated'] or 0:.4f}"
            psnr = " exact" if row["psnr_db"] is None else f"{row['psnr_db']:6.2f} dB"
            print("{selector:32} {limit:<6} {kept:7.2%} {loss:.4f} {psnr}".format(**row, psnr=psnr) + above)
        for row in told["equal_loss"]:
            kept = "      –" if row["kept"] is None else f"{row['kept']:7.2%}"
            print(
                f"{row['loss']:.3f} by {row['by']:4} {row['selector']:32} {kept} "
                f"({row['clips_that_miss']:2} miss, {row['clips_at_once']:2} at once)  "
                f"{_words(row['times'][REPLENISH])} × replenish   random needs {_words(row['fewer'][RANDOM])} ×"
            )


def _words(times: dict | None) -> str:
    if times is None:
        return "–"
    return f"{times['value']:.2f}" + ("" if times["low"] is None else f" ({times['low']:.2f}–{times['high']:.2f})")


if __name__ == "__main__":
    main()
