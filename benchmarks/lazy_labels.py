"""What lazy label search saves against trying every patch, and what it loses; writes JSON.

    python benchmarks/lazy_labels.py train FOLDER --out DIR [--minutes 30]
    python benchmarks/lazy_labels.py measure FOLDER [--video-mae DIR] [--clips 6] [--frames 16] [--most 0.2] \\
        [--refined-px 224] [--memory FILE]

``train`` makes a small masked autoencoder on the videos of a folder, on one core: without weights that mean anything
every choice of a patch is noise. It has the published grid at a quarter of the size: 2² + 4² + 7² + 14² = 265 cells of
frames of 56 px, patches of 4 px. ``measure`` searches the same clips with the same counts by every method, under the
bundled refiner, that autoencoder and the canvas. Losses of a search are those after the last gaze of each frame, mean
over a clip's frames; its ``final_loss`` is their mean over clips. Evaluations are all sets of gazes that the judge was
asked about, by either search.

The refiner takes frames of any size; at 56 px an exhaustive search costs a sixteenth of what it does at 224 px, the
size that it was trained at.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from autogaze.datasets.label_clip import read_label_clip
from autogaze.datasets.labels import label_counts
from autogaze.errors import VideoError
from autogaze.evaluation.facts import all_versions, machine
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.labelling.budgets import DrawnBudget, Limits, clip_rng
from autogaze.labelling.lazy import Lazy
from autogaze.labelling.scorers import CandidateScorer, CanvasScorer, RefinedScorer, VideoMAEScorer
from autogaze.labelling.search import Exhaustive, FrameTrials, Pick, Rebuilt, SearchMethod, search_clip
from autogaze.losses.pixel import HALF
from autogaze.reconstructors import load_reconstructor
from autogaze.reconstructors.refined import RefinedReconstructor
from autogaze.reconstructors.refiner import Refiner
from autogaze.tasks.video_mae_reconstruction import VideoMAE, VideoMAEConfig
from autogaze.video import find_sources

CONFIG = VideoMAEConfig(
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=144,
    image_size=56,
    patch_size=4,
    decoder_hidden_size=48,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=3,
    decoder_intermediate_size=144,
    scales="8+16+28+56",
    max_num_frames=16,
)
FRAMES = 8
"""Most frames of a clip in training."""
TRIED = (4, 8, 12, 24)
"""Candidates of the lazy search."""


def clips_of(folder: Path, *, every: int, side_px: int, frames: int) -> list[tuple[str, np.ndarray]]:
    """(name, clip) of every n-th video of a folder that is long enough."""
    found = []
    for source in find_sources([str(folder)])[::every]:
        try:
            found.append((Path(source).name, read_label_clip(source, frames=frames, side_px=side_px)))
        except VideoError:
            continue
    return found


def random_gaze(rng: np.random.Generator, counts: list[int], grid: PatchGrid) -> Gaze:
    """Patches drawn evenly over scales first, so that coarse ones are seen too."""
    weight = np.concatenate([np.full(n, 1 / n) for n in grid.patches_per_scale])
    index = [
        rng.choice(grid.num_patches, min(count, grid.num_patches), replace=False, p=weight / weight.sum())
        for count in counts
    ]
    layout = FrameLayout.tiled(grid, height_px=grid.scales_px[-1], width_px=grid.scales_px[-1])
    return Gaze(index=np.concatenate(index), count=np.array([len(one) for one in index]), layout=layout)


def draw_gaze(rng: np.random.Generator, clip: np.ndarray) -> Gaze:
    """Greedy or random gazes of a clip, as many as labels have, and in the last frame any smaller number too."""
    counts = list(DrawnBudget().limits(rng, frames=FRAMES, num_patches=CONFIG.grid.num_patches).counts[: len(clip)])
    counts[-1] = int(rng.integers(1, counts[-1] + 1))
    if rng.random() < 0.5:
        return label_counts(clip, counts=counts, grid=CONFIG.grid).gaze
    return random_gaze(rng, counts, CONFIG.grid)


@torch.no_grad()
def start_sensibly(model: VideoMAE, clips: np.ndarray) -> None:
    """Weights from which minutes are enough: tokens are principal components, attention looks at the same place.

    Queries and keys near the identity make tokens of like positions see each other, values and outputs near it copy
    what they hold (after Trockman & Kolter 2023); the rest is as it was drawn.
    """
    frames = torch.from_numpy(clips[::3, 0]).permute(0, 3, 1, 2) / 127.5 - 1
    side = CONFIG.patch_size
    patches = torch.nn.functional.unfold(frames, side, stride=side).transpose(1, 2).flatten(0, 1)  # (n, 3 · side²)
    mean = patches.mean(0)
    basis = torch.linalg.svd(patches - mean, full_matrices=False).Vh  # (C, 3 · side²): C is 3 · side² here
    scale = 2 / (patches - mean).matmul(basis.T).std(0).clamp(min=0.3)
    embedding, out = model.vit.embeddings.patch_embeddings.projection, model.decoder.decoder_pred
    embedding.weight.copy_((scale[:, None] * basis).view_as(embedding.weight))
    embedding.bias.copy_(-scale * (basis @ mean))
    by_channel_last = torch.arange(3 * side**2).view(3, side**2).T.flatten()  # rebuilt patches have their channels last
    out.weight.copy_((basis / scale[:, None]).T[by_channel_last])
    out.bias.copy_(mean[by_channel_last])
    identity = torch.eye(CONFIG.hidden_size)
    model.decoder.decoder_embed.weight.copy_(identity)
    for layer in (*model.vit.encoder.layer, *model.decoder.decoder_layers):
        heads = layer.attention.attention
        for part, strength in (
            (heads.query, 1.0),
            (heads.key, 1.0),
            (heads.value, 0.5),
            (layer.attention.output.dense, 0.5),
        ):
            part.weight.mul_(0.5).add_(strength * identity)


def train(folder: Path, out: Path, *, minutes: float, init: Path | None, batch: int = 8, seed: int = 0) -> None:
    """Mean absolute error; gazes are those of a greedy search or random ones, cut off anywhere."""
    clips = np.stack([clip for _, clip in clips_of(folder, every=1, side_px=CONFIG.image_size, frames=FRAMES)])
    model, rng = VideoMAE(CONFIG, space=HALF), np.random.default_rng(seed)
    model.init_weights(torch.Generator().manual_seed(seed))
    if init is None:
        start_sensibly(model, clips)
    else:
        model.load_state_dict(VideoMAE.from_pretrained(init).state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.01)
    started, step, losses = time.monotonic(), 0, []
    while (spent := (time.monotonic() - started) / 60 / minutes) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, step / 50 + 0.02) * (1 - spent) + 1e-5
        frames = int(rng.integers(1, FRAMES + 1))  # what comes later plays no part: attention is causal
        chosen = clips[rng.integers(0, len(clips), batch), :frames]
        flipped = chosen[:, :, :, ::-1] if rng.random() < 0.5 else chosen
        gazes = [draw_gaze(rng, clip) for clip in flipped]
        pixels = torch.from_numpy(np.ascontiguousarray(flipped)).permute(0, 1, 4, 2, 3) / 255
        asked = sorted({frames - 1, int(rng.integers(0, frames))})
        target = model.space.from_unit(pixels)
        rebuilt = model(target, gazes, asked)
        # Absolute errors alone say which way to go, but hardly where it matters.
        loss = rebuilt.loss_mean.mean() + (rebuilt.reconstruction - target[:, asked]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(rebuilt.loss_mean.mean().item())
        step += 1
        if step % 50 == 0:
            print(f"step {step}, {spent:.0%}: {np.mean(losses[-50:]):.4f}", flush=True)
    model.eval().save_pretrained(out)
    facts = {
        "steps": step,
        "minutes": minutes,
        "batch": batch,
        "clips": len(clips),
        "loss": float(np.mean(losses[-200:])),
    }
    (out / "training.json").write_text(json.dumps(facts))


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a method found in one clip."""

    loss: list[float]
    """After the last gaze of each frame."""
    evaluations: int
    seconds: float

    @classmethod
    def by(cls, method: SearchMethod, *, scorer: CandidateScorer, rgb: np.ndarray, limits: Limits) -> Found:
        before = time.perf_counter()
        found = search_clip(rgb, scorer=scorer, method=method, limits=limits)
        seconds, gaze = time.perf_counter() - before, found.gaze
        assert gaze.predicted_loss is not None
        loss = gaze.predicted_loss[np.cumsum(gaze.count) - 1]
        return cls(loss=loss.astype(float).tolist(), evaluations=found.evaluations, seconds=seconds)

    @classmethod
    def of(cls, gaze: Gaze, *, scorer: CandidateScorer, rgb: np.ndarray) -> Found:
        """What the judge says of gazes that it did not choose."""
        clip, loss = scorer.open(rgb), []
        for one in gaze:
            loss.append(float(clip.tried(one.index[None]).losses[0]))
            clip.commit(one.index)
        return cls(loss=loss, evaluations=len(loss), seconds=0.0)


class OneOfBest:
    """Tries every patch and takes one of the best few by chance: what a search loses that is a little wrong."""

    name = "one of the best"

    def __init__(self, few: int) -> None:
        self.few = few

    def open(self, rgb: np.ndarray, grid: PatchGrid) -> OneOfBestPatches:
        return OneOfBestPatches(grid, self.few)


class OneOfBestPatches:
    """The picker of :class:`OneOfBest`."""

    needs_start = False

    def __init__(self, grid: PatchGrid, few: int) -> None:
        self._few, self._all, self._rng = few, np.arange(grid.num_patches), np.random.default_rng(0)

    def pick(self, trials: FrameTrials, *, taken: Sequence[int], now: Rebuilt | None) -> Pick:
        patches = np.setdiff1d(self._all, taken)
        tried = trials.tried(patches)
        chosen = int(self._rng.choice(np.argsort(tried.losses, kind="stable")[: self._few]))
        # The picture is that of the best one, and nobody looks at it.
        rebuilt = Rebuilt(loss=float(tried.losses[chosen]), picture=tried.picture)
        return Pick(patch=int(patches[chosen]), rebuilt=rebuilt)

    def commit(self, index: np.ndarray) -> None:
        pass


class Memory:
    """What was searched before, so that an interrupted measurement goes on."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        self.known = {line["key"]: Found(**line["found"]) for line in map(json.loads, lines)}

    def of(self, key: str, search: Callable[[], Found]) -> Found:
        if key not in self.known:
            self.known[key] = search()
            if self.path is not None:
                with self.path.open("a") as file:
                    file.write(json.dumps({"key": key, "found": asdict(self.known[key])}) + "\n")
        return self.known[key]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One judge, and the clips it is asked about."""

    judge: str
    scorer: CandidateScorer
    clips: list[tuple[str, np.ndarray]]
    budget: DrawnBudget

    def limits(self, name: str, rgb: np.ndarray) -> Limits:
        """Gazes of each frame of a clip."""
        grid = self.scorer.grid
        limits = self.budget.limits(clip_rng(0, name, 0), frames=len(rgb), num_patches=grid.num_patches)
        if isinstance(self.scorer, CanvasScorer):  # label_counts ends a frame where nothing is gained any more
            counts = label_counts(rgb, counts=limits.counts, grid=grid).gaze.count
            return Limits(counts=tuple(counts.tolist()))
        return limits

    def rows(self, memory: Memory) -> list[dict[str, object]]:
        """A row for each method, relative to the exhaustive one on the same clips with the same counts."""
        grid, found = self.scorer.grid, dict[str, list[Found]]()
        for name, rgb in self.clips:
            limits = self.limits(name, rgb)
            methods: dict[str, SearchMethod] = {"exhaustive": Exhaustive()}
            methods |= {f"lazy {k}": Lazy(candidates=k) for k in TRIED}
            if isinstance(self.scorer, VideoMAEScorer):
                methods["one of the best 5"] = OneOfBest(5)
            for label, method in methods.items():
                search = partial(Found.by, method, scorer=self.scorer, rgb=rgb, limits=limits)
                one = memory.of(f"{self.judge} {rgb.shape[1]} px {len(rgb)} {limits.counts} {name} {label}", search)
                found.setdefault(label, []).append(one)
                print(f"{self.judge} {name} {label}: {np.mean(one.loss):.5f}, {one.seconds:.1f} s", flush=True)
            greedy = label_counts(rgb, counts=limits.counts, grid=grid).gaze
            by_chance = random_gaze(clip_rng(0, name, 2), list(limits.counts), grid)
            for label, gaze in (("greedy on the canvas", greedy), ("random", by_chance)):
                found.setdefault(label, []).append(Found.of(gaze, scorer=self.scorer, rgb=rgb))
        return [self._row(label, of_clips, found["exhaustive"]) for label, of_clips in found.items()]

    def _row(self, label: str, found: list[Found], exhaustive: list[Found]) -> dict[str, object]:
        loss, least = (np.array([np.mean(one.loss) for one in clips]) for clips in (found, exhaustive))
        evaluations, of_all = (sum(one.evaluations for one in clips) for clips in (found, exhaustive))
        return {
            "judge": self.judge,
            "method": label,
            "evaluations": evaluations,
            "times_fewer": of_all / evaluations,
            "final_loss": float(loss.mean()),
            "above_exhaustive": float(loss.mean() / least.mean() - 1),
            "above_exhaustive_by_clip": (loss / least - 1).tolist(),
            "seconds": sum(one.seconds for one in found),
        }

    def facts(self) -> dict[str, object]:
        """What was searched."""
        counts = [self.limits(name, rgb).counts for name, rgb in self.clips]
        return {
            "judge": self.judge,
            "loss_unit": self.scorer.loss_unit,
            "clips": [name for name, _ in self.clips],
            "frames": [len(rgb) for _, rgb in self.clips],
            "gazes": [sum(of_clip) for of_clip in counts],
            "frame_px": self.scorer.grid.scales_px[-1],
            "patches": self.scorer.grid.num_patches,
            "budget": self.budget.to_json(),
        }


def refined_judge(frame_px: int) -> RefinedScorer:
    """The bundled refiner for frames of another size, cut into as many patches."""
    bundled = load_reconstructor("refined")
    assert isinstance(bundled, RefinedReconstructor)
    whole = bundled.refiner.config
    config = replace(
        whole,
        scales_px=tuple(side_px * frame_px // whole.scales_px[-1] for side_px in whole.scales_px),
        patch_px=whole.patch_px * frame_px // whole.scales_px[-1],
    )
    refiner = Refiner(config)
    refiner.load_state_dict(bundled.refiner.state_dict())
    return RefinedScorer(refiner.on("cpu").eval())


def trials_of(options: argparse.Namespace) -> list[Trial]:
    """The judges, each with its clips."""

    def clips(side_px: int) -> list[tuple[str, np.ndarray]]:
        return clips_of(options.folder, every=options.every, side_px=side_px, frames=options.frames)[: options.clips]

    judges: dict[str, CandidateScorer] = {"refined": refined_judge(options.refined_px)}
    if options.video_mae is not None:
        judges["video_mae"] = VideoMAEScorer(VideoMAE.from_pretrained(options.video_mae))
    judges["canvas"] = CanvasScorer(CONFIG.grid)
    budget = DrawnBudget(high=options.most)
    return [
        Trial(judge=name, scorer=scorer, clips=clips(scorer.grid.scales_px[-1]), budget=budget)
        for name, scorer in judges.items()
    ]


def measure(options: argparse.Namespace) -> None:
    """All judges, and the time of canvas labels."""
    memory, trials = Memory(options.memory), trials_of(options)
    rows = [row for trial in trials for row in trial.rows(memory)]
    result = {
        "machine": machine(None),
        "versions": all_versions(),
        "default_candidates": Lazy().candidates,
        "video_mae": json.loads((options.video_mae / "training.json").read_text()) if options.video_mae else None,
        "trials": [trial.facts() for trial in trials],
        "rows": rows,
        "canvas_labels": canvas_seconds(options.folder, every=options.every),
    }
    options.out.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    for row in rows:
        clips = " ".join(f"{above:+.2%}" for above in row["above_exhaustive_by_clip"])
        print(
            f"{row['judge']:10} {row['method']:22} {row['evaluations']:8} {row['times_fewer']:7.1f}× "
            f"{row['final_loss']:.5f} {row['above_exhaustive']:+.2%} ({clips}) {row['seconds']:.1f} s"
        )
    print(result["canvas_labels"])


def canvas_seconds(folder: Path, *, every: int) -> dict[str, object]:
    """How long the label of a 16-frame clip takes by the canvas, decoding left out."""
    seconds = []
    for name, rgb in clips_of(folder, every=every, side_px=224, frames=16):
        counts = DrawnBudget().limits(clip_rng(0, name, 0), frames=16, num_patches=265).counts
        for _ in range(3):
            before = time.perf_counter()
            label_counts(rgb, counts=counts)
            seconds.append(time.perf_counter() - before)
    return {
        "clips": len(seconds) // 3,
        "frames": 16,
        "median_seconds": float(np.median(seconds)),
        "worst_seconds": float(np.max(np.reshape(seconds, (-1, 3)).min(1))),
        "cpu": "one thread",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    training, measuring = verbs.add_parser("train"), verbs.add_parser("measure")
    for verb in (training, measuring):
        verb.add_argument("folder", type=Path)
    training.add_argument("--out", type=Path, required=True)
    training.add_argument("--minutes", type=float, default=30)
    training.add_argument("--init", type=Path, help="go on from this one instead")
    measuring.add_argument("--video-mae", type=Path, help="what training made")
    measuring.add_argument("--clips", type=int, default=6, help="at most so many")
    measuring.add_argument("--every", type=int, default=18, help="every n-th video of the folder")
    measuring.add_argument("--frames", type=int, default=16, help="of each clip")
    measuring.add_argument("--most", type=float, default=0.2, help="largest mean share of patches that is drawn")
    measuring.add_argument("--refined-px", type=int, default=224, choices=(56, 112, 224), help="side of its frames")
    measuring.add_argument("--memory", type=Path, help="where searches are kept, to go on after an interruption")
    measuring.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.verb == "train":
        train(options.folder, options.out, minutes=options.minutes, init=options.init)
    else:
        measure(options)


if __name__ == "__main__":
    main()
