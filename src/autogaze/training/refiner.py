"""Training of a refiner on canvases made as it runs: ``python -m autogaze.training.refiner --videos DIR --out DIR``."""

from __future__ import annotations

import itertools
import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from autogaze.datasets.clips import ClipMix, find_images, find_videos, validation_recipes
from autogaze.datasets.labellers import GreedyLabeller
from autogaze.datasets.labels import Label
from autogaze.datasets.stream import ClipMaker, ClipShape, ClipStream, LabelledClip, Unreadable
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.reconstructors.provenance import CanvasRecorder, CanvasView
from autogaze.reconstructors.refiner import CanvasTensors, Refiner, RefinerConfig
from autogaze.training.settings import TrainingError
from autogaze.training.state import Averaged, Progress, check_unused, load_state, save_state
from autogaze.training.stopping import stopping_on_sigterm, telling_errors

LOG = logging.getLogger(__name__)
LEVEL = 1 / 255
"""Smallest difference of two colours in 0…1."""
MAX_UNREADABLE = 100
"""So many recipes in a row without a clip end a run."""


@dataclass(frozen=True, kw_only=True)
class RefinerSettings:
    """A complete run.

    Raises:
        TrainingError: a value is not legal, or there is nothing to train on.
    """

    out: Path
    """Folder for checkpoint, log and state."""
    videos: Path | None = None
    """Folder of videos to train on."""
    images: Path | None = None
    """Folder of images to ride over."""
    val: Path | None = None
    """Folder of videos to validate on."""
    resume: bool = False
    """Go on from the state in ``out``, if there is one."""
    minutes: float = 10.0
    """This sitting ends after so many minutes, start included."""
    total_minutes: float | None = None
    """Minutes over all sittings, which the learning rate follows; None: those of this one."""
    steps: int | None = None
    """Steps over all sittings; if given, the learning rate follows them and not the clock."""
    widths: tuple[int, ...] = RefinerConfig.widths
    """Channels of each level."""
    blocks: int = RefinerConfig.blocks
    """Residual blocks of a level on each way."""
    clips: int = 4
    """New clips of a step."""
    frames: int = 3
    """Frames of each clip that a step learns from, drawn at random."""
    random_gazes: float = 0.15
    """Share of clips gazed at by chance instead of greedily, so that a poor selection is no surprise."""
    peak_lr: float = 1e-3
    """Learning rate after the warm-up."""
    final_lr: float = 1e-5
    """Learning rate at the end."""
    warmup_steps: int = 100
    """Steps until the learning rate is at its peak."""
    clip_norm: float = 1.0
    """Longer gradients are shortened to it."""
    average: float = 0.998
    """Decay of the averaged weights, which become the checkpoint."""
    seed: int = 0
    """Seed of weights, clips and draws."""
    workers: int = 0
    """Processes that make clips; 0 makes them between the steps."""
    cache_gb: float = 4.0
    """Decoded sources kept in memory."""
    device: str | None = None
    """None: a GPU if there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the passes; auto: bf16 on a GPU. Weights and optimiser are always fp32."""
    log_every: int = 20
    """Steps between lines of the log."""
    save_minutes: float = 5.0
    """Minutes between states and validations."""

    def __post_init__(self) -> None:
        if self.videos is None and self.images is None:
            raise TrainingError("nothing to train on; give a folder of --videos, of --images, or both")
        for name in ("minutes", "clips", "frames", "peak_lr", "warmup_steps", "log_every"):
            if getattr(self, name) <= 0:
                raise TrainingError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.random_gazes <= 1:
            raise TrainingError(f"random_gazes must be a share from 0 to 1, got {self.random_gazes}")

    def torch_device(self) -> torch.device:
        """Where the run takes place."""
        return torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def autocast(self) -> torch.autocast:
        """The precision of forward passes."""
        kind = self.torch_device().type
        wanted = self.precision == "bf16" or (self.precision == "auto" and kind == "cuda")
        return torch.autocast(kind, torch.bfloat16, enabled=wanted)

    def share_done(self, *, step: int, seconds: float) -> float:
        """How much of the whole run lies behind it, 0 to 1."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        return min(1.0, seconds / (60 * (self.total_minutes or self.minutes)))

    def learning_rate(self, *, step: int, share: float) -> float:
        """Linear warm-up by steps, then a half cosine by the share done."""
        decayed = self.final_lr + (self.peak_lr - self.final_lr) * (1 + math.cos(math.pi * share)) / 2
        return decayed * min(1.0, (step + 1) / self.warmup_steps)


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Means over frames, before and after the refiner."""

    canvas_loss: float
    """Mean absolute error of the canvas, colours in 0…1."""
    refined_loss: float
    """The same of the refined frames."""
    canvas_psnr: float
    """Mean PSNR of the canvas in dB."""
    refined_psnr: float
    """The same of the refined frames."""


def refiner_loss(refined_BCHW: Tensor, *, canvas_BHWC: Tensor, target_BHWC: Tensor) -> Tensor:
    """What is left of the canvas's errors, the squared one and half the absolute one; a scalar, 1.5 if nothing is won.

    Relative to each frame's own, because otherwise the frames with the poorest canvases teach all there is. Mostly
    squared, because absolute errors alone say which way to go, but hardly where it matters.

    Args:
        refined_BCHW: float frames, colours about 0…1.
        canvas_BHWC: uint8 frames before they were refined.
        target_BHWC: uint8 true frames.
    """
    canvas, target = (frames.movedim(-1, 1) / 255 for frames in (canvas_BHWC, target_BHWC))
    before, after = ((frames - target).flatten(1) for frames in (canvas, refined_BCHW))
    # An error of a level counts as none, so that exact canvases do not count beyond measure.
    squared = after.square().mean(1) / (before.square().mean(1) + LEVEL**2)
    absolute = after.abs().mean(1) / (before.abs().mean(1) + LEVEL)
    return (squared + absolute / 2).mean()


def canvas_view(clip: LabelledClip[Label], *, random: bool, rng: np.random.Generator) -> CanvasView:
    """The canvas of a labelled clip, by its label's gazes or by as many drawn at random."""
    frames = Frames.from_rgb(np.array(clip.rgb))
    gaze = clip.label.gaze
    if random:
        layout = gaze.layout
        index = [rng.choice(layout.num_indices, count, replace=False) for count in gaze.count]
        gaze = Gaze(index=np.concatenate(index), count=gaze.count, layout=layout)
    return CanvasRecorder(gaze.layout).step(frames, gaze)


class Run:
    """One sitting of a run."""

    def __init__(self, settings: RefinerSettings) -> None:
        """Set up the network, or load it with its state.

        Raises:
            CheckpointError: the state cannot be loaded.
            TrainingError: there is a state in ``out``, and the run is not to go on from it.
        """
        self.settings = settings
        self.device = settings.torch_device()
        self._started = time.monotonic()
        if not settings.resume:
            check_unused(settings.out)
        settings.out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(settings.seed)
        config = RefinerConfig(widths=settings.widths, blocks=settings.blocks)
        self.refiner = Refiner(config).on(self.device)
        self.averaged = Averaged(self.refiner, decay=settings.average)
        self.optimizer = torch.optim.AdamW(self.refiner.parameters(), lr=settings.peak_lr, weight_decay=1e-4)
        loaded = None
        if settings.resume:
            state = settings.out / "state"
            loaded = load_state(state, model=self.refiner, averaged=self.averaged, optimizer=self.optimizer)
        self._before = loaded or Progress()
        self.step, self.recipe = self._before.step, self._before.oldest_recipe
        self.shape = ClipShape(grid=config.grid, frames=16)
        self.validation: list[CanvasView] = []
        self.must_stop = False
        """Set it and the sitting ends after the step."""

    @property
    def seconds(self) -> float:
        """Seconds of this sitting."""
        return time.monotonic() - self._started

    @property
    def share(self) -> float:
        """How much of the whole run is done."""
        return self.settings.share_done(step=self.step, seconds=self._before.seconds + self.seconds)

    def train(self) -> None:
        """Train until the sitting is over, then write checkpoint and state.

        Raises:
            TrainingError: the loss is not a number; the last state and checkpoint stay as they are.
        """
        settings = self.settings
        mix = ClipMix(
            videos=find_videos(settings.videos), images=find_images(settings.images), seed=settings.seed, max_gazes=1024
        )
        recipes = (mix.recipe(number) for number in itertools.count(self.recipe))
        cache_bytes = int(settings.cache_gb * 1e9)
        with ClipStream(
            recipes,
            self.shape,
            labeller=GreedyLabeller(grid=self.shape.grid),
            workers=settings.workers,
            ahead=16,
            cache_bytes=cache_bytes,
        ) as stream:
            self._read_validation()
            self.log("start", settings={name: str(value) for name, value in asdict(settings).items()})
            saved, total, loss = self.seconds, 0.0, 0.0
            while not (self.must_stop or self.share >= 1 or self.seconds >= 60 * settings.minutes):
                loss = self._one_step(stream)
                total += loss
                if self.step % settings.log_every == 0:
                    self._check(loss)
                    self.log("step", share=self.share, loss=total / settings.log_every)
                    total = 0.0
                if self.seconds - saved > 60 * settings.save_minutes:
                    self._check(loss)
                    self.save()
                    saved = self.seconds
            self._check(loss)
            self.save()

    def _read_validation(self) -> None:
        maker = ClipMaker(self.shape, labeller=GreedyLabeller(grid=self.shape.grid), cache_bytes=0)
        for recipe in validation_recipes(find_videos(self.settings.val)):
            clip = maker.make(recipe)
            if isinstance(clip, Unreadable):
                self.log("unreadable", path=str(recipe.path), message=clip.message)
            else:
                view = canvas_view(clip, random=False, rng=recipe.rng(3))
                self.validation.append(view[np.array([0, 5, 10, 15])])

    def _clips(self, stream: Iterator[LabelledClip[Label] | Unreadable]) -> Iterator[LabelledClip[Label]]:
        misses = 0
        while misses < MAX_UNREADABLE:
            clip = next(stream)
            self.recipe += 1
            if isinstance(clip, Unreadable):
                misses += 1
                self.log("unreadable", path=str(clip.recipe.path), message=clip.message)
            else:
                misses = 0
                yield clip
        raise TrainingError(f"none of {MAX_UNREADABLE} clips in a row could be made; the log says why")

    def _batch(self, stream: Iterator[LabelledClip[Label] | Unreadable]) -> CanvasView:
        views = []
        for clip in itertools.islice(self._clips(stream), self.settings.clips):
            rng = clip.recipe.rng(3)
            view = canvas_view(clip, random=bool(rng.random() < self.settings.random_gazes), rng=rng)
            views.append(view[np.sort(rng.choice(len(view), min(self.settings.frames, len(view)), replace=False))])
        return CanvasView.stack(views)

    def _one_step(self, stream: Iterator[LabelledClip[Label] | Unreadable]) -> float:
        settings = self.settings
        rate = settings.learning_rate(step=self.step, share=self.share)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        view = self._batch(stream)
        with settings.autocast():
            refined = self.refiner(CanvasTensors.of(view, device=self.device))
        canvas, target = (torch.from_numpy(frames).to(self.device) for frames in (view.canvas, view.target))
        loss = refiner_loss(refined, canvas_BHWC=canvas, target_BHWC=target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.refiner.parameters(), settings.clip_norm)
        self.optimizer.step()
        self.step += 1
        self.averaged.update(self.refiner, step=self.step)
        return loss.item()

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is not a number at step {self.step}; {self.settings.out} has the last good state: "
                f"go on from it with --resume and a lower --peak-lr"
            )

    def save(self) -> None:
        """Write the averaged weights as a checkpoint, what is needed to go on, and how well they do."""
        averaged = Refiner(self.refiner.config).on(self.device)
        averaged.load_state_dict(self.averaged.weights)
        if self.validation:
            self.log("validation", **asdict(self.validate(averaged)))
        averaged.save_pretrained(self.settings.out / "checkpoint")
        seconds = self._before.seconds + self.seconds
        progress = Progress(step=self.step, seconds=seconds, clips=self.recipe, oldest_recipe=self.recipe)
        state = self.settings.out / "state"
        save_state(state, model=self.refiner, averaged=self.averaged, optimizer=self.optimizer, progress=progress)

    @torch.no_grad()
    def validate(self, refiner: Refiner) -> Quality:
        """Four frames of the first clip of each validation video."""
        rows = []
        for view in self.validation:
            refined = refiner(CanvasTensors.of(view, device=self.device)).clamp(0, 1)
            target = torch.from_numpy(view.target).to(self.device).movedim(-1, 1) / 255
            canvas = torch.from_numpy(view.canvas).to(self.device).movedim(-1, 1) / 255
            for t in range(len(view)):
                errors = [picture[t] - target[t] for picture in (canvas, refined)]
                losses = [float(error.abs().mean()) for error in errors]
                psnrs = [-10 * math.log10(max(float(error.square().mean()), 1e-10)) for error in errors]
                rows.append([*losses, *psnrs])
        means = np.mean(rows, axis=0).tolist()
        return Quality(canvas_loss=means[0], refined_loss=means[1], canvas_psnr=means[2], refined_psnr=means[3])

    def log(self, event: str, **values: Any) -> None:
        """Add a line to ``log.jsonl``."""
        line = {"event": event, "step": self.step, "seconds": round(self._before.seconds + self.seconds, 2), **values}
        with (self.settings.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in line.items()}
        LOG.info(" ".join(f"{name}={value}" for name, value in shown.items() if name != "settings"))


def main() -> None:
    """Run from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with telling_errors():
        run = Run(tyro.cli(RefinerSettings, description=__doc__))
        with stopping_on_sigterm(run):
            run.train()


if __name__ == "__main__":
    main()
