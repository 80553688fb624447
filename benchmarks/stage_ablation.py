"""What each training stage is worth, and each choice of the network's shape; trains, measures, writes JSON.

    python benchmarks/stage_ablation.py --work DIR [--shape tiny] [--seeds 0 1 2] [--table stages passes scales] \\
        [--ntp="--config tiny"] [--grpo="..."] [--both="..."] [--further="..."] [--ntp-steps 400] [--grpo-steps 200] \\
        [--passes 1 2 4 8] [--clips FOLDER]
    python benchmarks/stage_ablation.py --work DIR --checkpoint none=DIR NTP=DIR "NTP + GRPO=DIR" --clips FOLDER

Every network of a table is trained with every seed by ``autogaze train``; the same command goes on where it was
interrupted. Checkpoints can be given instead. Tables: "stages" (none, NTP, GRPO only, NTP + GRPO, and
NTP followed by as many steps of NTP), "passes" (gazes that one pass of the decoder proposes), "scales" (all or the
finest alone).

Measured on clips that no training has seen: the beginning of the videos of a folder, or drawn ones of another seed.
All under the canvas, which nothing but the patches plays a part in:

* kept at the loss: the model gazes with the same share in every frame, for a ladder of shares, and the share at which
  its mean loss is the one asked for is read off, by clip and by mean, see ``equal_loss.py``;
* loss at equal counts: the model gazes as often in every frame as a greedy search does to keep that loss;
* the stop head: what is kept, lost and above the loss asked for when frames end by the bare prediction;
* the time of a clip at the share it needs.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from ablation_runs import FURTHER, STAGES, Trainer, Words, config_of, with_finest_scale_alone, with_gazes_per_pass
from equal_loss import Curve, needed_by_clip, needed_by_mean

from autogaze.datasets.clips import ClipMix, mixed_sources, validation_recipes
from autogaze.datasets.labellers import GreedyLabeller
from autogaze.datasets.labels import Label, LabelRule
from autogaze.datasets.sources import find_validation
from autogaze.datasets.stream import ClipMaker, ClipShape, LabelledClip
from autogaze.evaluation.facts import all_versions, machine
from autogaze.evaluation.intervals import share_of
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.models.autogaze.configuration_autogaze import AutoGazeConfig
from autogaze.selectors.canvas import quality

HELD_SEED = 1_000_003
"""Of drawn clips; trainings are far from it."""
SHARES = (0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.5, 0.75, 1.0)
BATCH = 16
CAP = 0.75

Clips = list[LabelledClip[Label]]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One network on the clips."""

    kept_by_clip: float
    """Share needed for the loss, mean over clips; a clip that never gets there counts as 1."""
    clips_that_miss: int
    """Clips that never do."""
    kept_by_mean: float | None
    """Share at which the mean loss over clips is the one asked for; None if none is."""
    loss_at_counts: float
    """Mean loss at the counts of the greedy search."""
    stopped_kept: float
    """Share kept where the stop head ends frames."""
    stopped_loss: float
    """Mean loss there."""
    stopped_above: float
    """Share of frames above the loss asked for there."""
    clip_ms: float
    """Median time of one clip at ``kept_by_clip``."""


def held_clips(config: AutoGazeConfig, *, folder: Path | None, count: int, loss: float) -> Clips:
    """Clips with the gazes a greedy search takes to keep the loss."""
    shape = ClipShape(grid=config.grid, frames=config.max_num_frames)
    rule = LabelRule(threshold=loss, max_ratio=1.0, max_gazes=shape.frames * shape.grid.num_patches)
    if folder is None:
        mix = ClipMix(sources=mixed_sources(procedural=1.0), seed=HELD_SEED)
        recipes = [mix.recipe(number) for number in range(count)]
    else:
        paths = find_validation([folder])
        recipes = validation_recipes([paths[round(k)] for k in np.linspace(0, len(paths) - 1, min(count, len(paths)))])
    maker = ClipMaker(shape, labeller=GreedyLabeller(grid=shape.grid), cache_bytes=0)
    made = [maker.make(replace(recipe, rule=rule)) for recipe in recipes]
    return [clip for clip in made if isinstance(clip, LabelledClip)]


def measure(model: AutoGaze, clips: Clips, *, loss: float) -> Measured:
    """All that is said of one network."""
    frames = [Frames.from_rgb(np.array(clip.rgb)) for clip in clips]
    patches = model.grid.num_patches
    shares = sorted({max(1, round(share * patches)) / patches for share in SHARES})
    curve = curve_of([gaze_all(model, frames, ratio=share) for share in shares], frames)
    by_clip = needed_by_clip(curve, loss)
    kept = float(by_clip.kept_C.mean())
    (by_mean,) = needed_by_mean(curve, (loss,), weight_RC=np.full((1, len(clips)), 1 / len(clips)))
    counted = [
        model.gaze(one.rgb, ratio=ratios(clip.label.gaze, patches)) for one, clip in zip(frames, clips, strict=True)
    ]
    stopped = gaze_all(model, frames, ratio=CAP, threshold=loss)
    stopped_losses = losses(stopped, frames)
    clip_N = np.repeat(np.arange(len(clips)), [len(one) for one in stopped_losses])
    return Measured(
        kept_by_clip=kept,
        clips_that_miss=int(by_clip.misses_C.sum()),
        kept_by_mean=None if np.isnan(by_mean[0]) else float(by_mean[0]),
        loss_at_counts=_mean(losses(counted, frames)),
        stopped_kept=float(np.mean([gaze.ratio for gaze in stopped])),
        stopped_loss=_mean(stopped_losses),
        stopped_above=share_of(np.concatenate(stopped_losses) > loss, clip_N).rate,
        clip_ms=clip_ms(model, frames, ratio=max(kept, 1 / patches)),
    )


def gaze_all(model: AutoGaze, frames: Sequence[Frames], *, ratio: float, threshold: float | None = None) -> list[Gaze]:
    """The model's likeliest gazes of all clips."""
    gazes: list[Gaze] = []
    for first in range(0, len(frames), BATCH):
        videos = np.stack([clip.rgb for clip in frames[first : first + BATCH]])
        gazes += model.gaze_batch(videos, ratio=ratio, threshold=threshold)
    return gazes


def ratios(gaze: Gaze, patches: int) -> list[float]:
    """One for each frame, for as many gazes as another one has there, at least 1."""
    # Half a patch more, so that rounding down gives the count.
    return [min(1.0, (max(int(count), 1) + 0.5) / patches) for count in gaze.count]


def curve_of(ladder: Sequence[Sequence[Gaze]], frames: Sequence[Frames]) -> Curve:
    """What clips keep and lose at each step of a ladder of gazes."""
    return Curve(
        kept_LC=np.array([[gaze.ratio for gaze in gazes] for gazes in ladder]),
        loss_LC=np.array([[one.mean() for one in losses(gazes, frames)] for gazes in ladder]),
    )


def losses(gazes: Sequence[Gaze], frames: Sequence[Frames]) -> list[np.ndarray]:
    """(T,) losses of each clip under the canvas."""
    return [quality(one, gaze=gaze).loss for one, gaze in zip(frames, gazes, strict=True)]


def clip_ms(model: AutoGaze, frames: Sequence[Frames], *, ratio: float) -> float:
    """Median time of one clip, after one that warms up."""
    spent = []
    for one in [frames[0], *frames[:8]]:
        before = time.perf_counter()
        model.gaze(one.rgb, ratio=min(1.0, ratio))
        spent.append(1e3 * (time.perf_counter() - before))
    return statistics.median(spent[1:])


def baselines(clips: Clips, *, loss: float) -> dict[str, object]:
    """What the greedy search keeps and loses, and chance as many patches in every frame."""
    frames = [Frames.from_rgb(np.array(clip.rgb)) for clip in clips]
    greedy = [clip.label.gaze for clip in clips]
    rng = np.random.default_rng(0)
    drawn = [
        Gaze(
            index=np.concatenate([rng.choice(gaze.layout.num_indices, count, replace=False) for count in gaze.count]),
            count=gaze.count,
            layout=gaze.layout,
        )
        for gaze in greedy
    ]
    return {
        "loss": loss,
        "clips": len(clips),
        "greedy_kept": float(np.mean([gaze.ratio for gaze in greedy])),
        "greedy_loss": _mean(losses(greedy, frames)),
        "random_loss_at_counts": _mean(losses(drawn, frames)),
    }


def row(name: str, measured: dict[int, Measured]) -> dict[str, object]:
    """Mean and spread over seeds of each figure, and the figures themselves."""
    told: dict[str, object] = {"network": name, "seeds": {str(seed): asdict(one) for seed, one in measured.items()}}
    for figure in asdict(next(iter(measured.values()))):
        values = [getattr(one, figure) for one in measured.values()]
        known = None not in values
        told[figure] = {
            "mean": float(np.mean(values)) if known else None,
            "deviation": statistics.stdev(values) if known and len(values) > 1 else None,
        }
    return told


def networks(table: str, config: AutoGazeConfig, *, passes: Sequence[int]) -> dict[str, tuple[str, AutoGazeConfig]]:
    """Name → stage and shape of the networks of a table."""
    if table == "stages":
        return {stage: (stage, config) for stage in (*STAGES, FURTHER)}
    if table == "passes":
        return {f"{k} gazes a pass": ("NTP", with_gazes_per_pass(config, k)) for k in passes}
    return {"all scales": ("NTP", config), "the finest scale alone": ("NTP", with_finest_scale_alone(config))}


def measure_table(
    table: str, config: AutoGazeConfig, *, trainer: Trainer, arguments: argparse.Namespace
) -> list[dict[str, object]]:
    """Train and measure all networks of a table; one whose training fails is left out and named."""
    rows = []
    for name, (stage, shape) in networks(table, config, passes=arguments.passes).items():
        clips = held_clips(shape, folder=arguments.clips, count=arguments.clip_count, loss=arguments.loss)
        measured = {}
        label = "net" if shape == config else "".join(letter if letter.isalnum() else "-" for letter in name)
        for seed in arguments.seeds:
            try:
                checkpoint = trainer.make(stage, config=shape, name=label, seed=seed)
            except RuntimeError as error:
                print(f"{name}, seed {seed}, is left out: {error}", flush=True)
                continue
            model = AutoGaze.from_pretrained(checkpoint, calibrated=False)
            measured[seed] = measure(model, clips, loss=arguments.loss)
        if measured:
            rows.append(row(name, measured))
            tell(rows[-1])
    return rows


def measure_given(arguments: argparse.Namespace) -> tuple[list[dict[str, object]], AutoGazeConfig]:
    """Measure checkpoints; several of one name are its seeds."""
    by_name: dict[str, list[AutoGaze]] = {}
    for word in arguments.checkpoint:
        name, _, path = word.rpartition("=")
        by_name.setdefault(name or path, []).append(AutoGaze.from_pretrained(path, calibrated=False))
    rows = []
    for name, models in by_name.items():
        clips = held_clips(models[0].config, folder=arguments.clips, count=arguments.clip_count, loss=arguments.loss)
        rows.append(row(name, {seed: measure(model, clips, loss=arguments.loss) for seed, model in enumerate(models)}))
        tell(rows[-1])
    return rows, models[0].config


def tell(found: dict) -> None:
    """One row on the terminal."""
    figures = ("kept_by_clip", "kept_by_mean", "loss_at_counts", "stopped_kept", "stopped_loss", "clip_ms")
    words = [f"{name} {found[name]['mean']} ± {found[name]['deviation']}" for name in figures]
    print(f"{found['network']}: {', '.join(words)}", flush=True)


def arguments_of() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the trained networks")
    parser.add_argument("--table", nargs="+", choices=("stages", "passes", "scales"), default=["stages"])
    parser.add_argument("--shape", default="tiny", help="tiny, published, or a config.json")
    parser.add_argument("--passes", type=int, nargs="+", default=[1, 2, 4, 8], help="gazes a pass of that table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ntp", default="--config tiny", help="words of autogaze train ntp")
    parser.add_argument("--grpo", default="--config tiny", help="words of autogaze train grpo from fresh weights")
    parser.add_argument(
        "--both", default="--config tiny --counts model --peak-lr 5e-4", help="its words from an NTP checkpoint"
    )
    parser.add_argument("--further", default="--config tiny --peak-lr 5e-4", help="those of train ntp from there")
    parser.add_argument("--ntp-steps", type=int, default=400)
    parser.add_argument("--grpo-steps", type=int, default=200)
    parser.add_argument("--checkpoint", nargs="+", default=[], metavar="NAME=DIR", help="measure these instead")
    parser.add_argument("--clips", type=Path, help="folder of videos held aside; drawn clips if not given")
    parser.add_argument("--clip-count", type=int, default=64)
    parser.add_argument("--loss", type=float, default=0.025)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    return parser.parse_args()


def main() -> None:
    """Train, measure, write, print."""
    arguments = arguments_of()
    arguments.work.mkdir(parents=True, exist_ok=True)
    words = Words(
        ntp=tuple(shlex.split(arguments.ntp)),
        grpo=tuple(shlex.split(arguments.grpo)),
        both=tuple(shlex.split(arguments.both)),
        further=tuple(shlex.split(arguments.further)),
        ntp_steps=arguments.ntp_steps,
        grpo_steps=arguments.grpo_steps,
    )
    if arguments.checkpoint:
        rows, config = measure_given(arguments)
        tables = {"given": rows}
    else:
        config, trainer = config_of(arguments.shape), Trainer(folder=arguments.work, words=words)
        tables = {
            table: measure_table(table, config, trainer=trainer, arguments=arguments) for table in arguments.table
        }
    clips = held_clips(config, folder=arguments.clips, count=arguments.clip_count, loss=arguments.loss)
    result = {
        "machine": machine(None),
        "versions": all_versions(),
        "commands": asdict(words),
        "seeds": arguments.seeds,
        "clips": "drawn" if arguments.clips is None else "videos",
        "baselines": baselines(clips, loss=arguments.loss),
        "tables": tables,
    }
    print(result["baselines"])
    arguments.out.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")


def _mean(found: Sequence[np.ndarray]) -> float:
    return float(np.mean([one.mean() for one in found]))


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    main()
