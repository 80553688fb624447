"""What lazy label search saves against trying every patch, and what it loses; writes JSON.

    python benchmarks/lazy_labels.py train FOLDER --out DIR [--minutes 6]
    python benchmarks/lazy_labels.py measure FOLDER [--video-mae DIR] [--clips 8] [--out FILE]

``train`` makes a small masked autoencoder on the videos of a folder, on one core: without weights that mean anything
every choice of a patch is noise. It has the published grid at half the size: 2² + 4² + 7² + 14² = 265 cells of
frames of 112 px, patches of 8 px. ``measure`` searches the same clips with the same counts by every method, under
that autoencoder, the bundled refiner and the canvas.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from autogaze.datasets.label_clip import read_label_clip
from autogaze.datasets.labels import label_counts
from autogaze.errors import VideoError
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.labelling.budgets import DrawnBudget, Limits, clip_rng
from autogaze.labelling.lazy import Lazy
from autogaze.labelling.scorers import CandidateScorer, CanvasScorer, VideoMAEScorer, make_scorer
from autogaze.labelling.search import Exhaustive, SearchMethod, search_clip
from autogaze.losses.pixel import HALF
from autogaze.reconstructors import load_reconstructor
from autogaze.tasks.video_mae_reconstruction import VideoMAE, VideoMAEConfig
from autogaze.video import find_sources

CONFIG = VideoMAEConfig(
    hidden_size=96,
    num_hidden_layers=3,
    num_attention_heads=3,
    intermediate_size=288,
    image_size=112,
    patch_size=8,
    decoder_hidden_size=96,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=3,
    decoder_intermediate_size=288,
    scales="16+32+56+112",
    max_num_frames=16,
)
FRAMES = 8


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
    patches = torch.nn.functional.unfold(frames, 8, stride=8).transpose(1, 2).flatten(0, 1)  # (n, 3 · 8 · 8)
    mean = patches.mean(0)
    basis = torch.linalg.svd(patches - mean, full_matrices=False).Vh[: CONFIG.hidden_size]  # (C, 3 · 8 · 8)
    scale = 2 / (patches - mean).matmul(basis.T).std(0).clamp(min=0.3)
    embedding, out = model.vit.embeddings.patch_embeddings.projection, model.decoder.decoder_pred
    embedding.weight.copy_((scale[:, None] * basis).view_as(embedding.weight))
    embedding.bias.copy_(-scale * (basis @ mean))
    by_channel_last = torch.arange(192).view(3, 64).T.flatten()  # rebuilt patches have their channels last
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
    clips = np.stack([clip for _, clip in clips_of(folder, every=1, side_px=112, frames=FRAMES)])
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
            loss.append(float(clip.losses(one.index[None])[0]))
            clip.commit(one.index)
        return cls(loss=loss, evaluations=len(loss), seconds=0.0)


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
    candidates: tuple[int, ...]

    def rows(self, memory: Memory) -> list[dict[str, object]]:
        """A row for each method, relative to the exhaustive one on the same clips with the same counts."""
        grid, found = self.scorer.grid, dict[str, list[Found]]()
        for name, rgb in self.clips:
            limits = self.budget.limits(clip_rng(0, name, 0), frames=len(rgb), num_patches=grid.num_patches)
            if isinstance(self.scorer, CanvasScorer):
                counts = label_counts(rgb, counts=limits.counts, grid=grid).gaze.count
                limits = Limits(counts=tuple(counts.tolist()))  # where nothing is gained any more frames end there
            methods = {"exhaustive": Exhaustive(), **{f"lazy {k}": Lazy(candidates=k) for k in self.candidates}}
            for label, method in methods.items():
                search = partial(Found.by, method, scorer=self.scorer, rgb=rgb, limits=limits)
                one = memory.of(f"{self.judge} {len(rgb)} {name} {label}", search)
                found.setdefault(label, []).append(one)
                print(f"{self.judge} {name} {label}: {np.mean(one.loss):.5f}, {one.seconds:.1f} s", flush=True)
            greedy = label_counts(rgb, counts=limits.counts, grid=grid).gaze
            by_chance = random_gaze(clip_rng(0, name, 2), list(limits.counts), grid)
            for label, gaze in (("greedy on the canvas", greedy), ("random", by_chance)):
                found.setdefault(label, []).append(Found.of(gaze, scorer=self.scorer, rgb=rgb))
        return [self._row(label, of_clips, found["exhaustive"]) for label, of_clips in found.items()]

    def _row(self, label: str, found: list[Found], exhaustive: list[Found]) -> dict[str, object]:
        loss, least = ([np.mean(one.loss) for one in clips] for clips in (found, exhaustive))
        evaluations, of_all = (sum(one.evaluations for one in clips) for clips in (found, exhaustive))
        return {
            "judge": self.judge,
            "method": label,
            "evaluations": evaluations,
            "times_fewer": of_all / evaluations,
            "final_loss": float(np.mean(loss)),
            "above_exhaustive": float(np.mean(loss) / np.mean(least) - 1),
            "worst_clip_above_exhaustive": float(np.max(np.array(loss) / least) - 1),
            "seconds": sum(one.seconds for one in found),
        }

    def facts(self) -> dict[str, object]:
        """What was searched."""
        frames = sum(len(rgb) for _, rgb in self.clips)
        return {
            "judge": self.judge,
            "loss_unit": self.scorer.loss_unit,
            "clips": [name for name, _ in self.clips],
            "frames": frames,
            "patches": self.scorer.grid.num_patches,
            "budget": self.budget.to_json(),
        }


def measure(options: argparse.Namespace) -> None:
    """All judges, and the time of canvas labels."""
    trials, folder, memory = [], options.folder, Memory(options.memory)
    if options.video_mae is not None:
        scorer = VideoMAEScorer(VideoMAE.from_pretrained(options.video_mae))
        clips = clips_of(folder, every=options.every, side_px=112, frames=FRAMES)[: options.clips]
        trials.append(
            Trial(judge="video_mae", scorer=scorer, clips=clips, budget=DrawnBudget(), candidates=(1, 4, 8, 12, 16, 24))
        )
    if options.refined_clips:
        judge = make_scorer(load_reconstructor("refined"))
        clips = clips_of(folder, every=options.every, side_px=224, frames=6)[: options.refined_clips]
        # Few gazes, because one evaluation takes a hundred times longer.
        few = DrawnBudget(low=0.02, high=0.035)
        trials.append(Trial(judge="refined", scorer=judge, clips=clips, budget=few, candidates=(2, 4, 8, 12)))
    clips = clips_of(folder, every=options.every, side_px=224, frames=FRAMES)[: options.clips]
    trials.append(Trial(judge="canvas", scorer=CanvasScorer(), clips=clips, budget=DrawnBudget(), candidates=(1, 4)))
    rows = [row for trial in trials for row in trial.rows(memory)]
    result = {
        "machine": {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
        "video_mae": json.loads((options.video_mae / "training.json").read_text()) if options.video_mae else None,
        "trials": [trial.facts() for trial in trials],
        "rows": rows,
        "canvas_labels": canvas_seconds(folder, every=options.every),
    }
    text = json.dumps(result, indent=1)
    if options.out is not None:
        options.out.write_text(text + "\n")
    for row in rows:
        print(
            f"{row['judge']:10} {row['method']:22} {row['evaluations']:8} {row['times_fewer']:7.1f}× "
            f"{row['final_loss']:.5f} {row['above_exhaustive']:+.2%} {row['worst_clip_above_exhaustive']:+.2%} "
            f"{row['seconds']:.1f} s"
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
    measuring.add_argument("--video-mae", type=Path)
    measuring.add_argument("--clips", type=int, default=8)
    measuring.add_argument("--refined-clips", type=int, default=3)
    measuring.add_argument("--every", type=int, default=11)
    measuring.add_argument("--memory", type=Path, help="where searches are kept, to go on after an interruption")
    measuring.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.verb == "train":
        train(options.folder, options.out, minutes=options.minutes, init=options.init)
    else:
        measure(options)


if __name__ == "__main__":
    main()
