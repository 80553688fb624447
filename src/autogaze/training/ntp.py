"""Next-token training on labels made while it runs: ``python -m autogaze.training.ntp --videos DIR --out DIR``."""

from __future__ import annotations

import itertools
import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from autogaze.datasets.clips import ClipMix, ClipRecipe, find_images, find_videos, validation_recipes
from autogaze.datasets.labellers import GreedyLabeller
from autogaze.datasets.labels import Label
from autogaze.datasets.stream import ClipShape, ClipStream, LabelledClip, Unreadable
from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.models.autogaze.configuration_autogaze import AutoGazeConfig
from autogaze.training.batch import Batch, collate
from autogaze.training.objective import Terms, score
from autogaze.training.pool import ClipPool
from autogaze.training.settings import NTPSettings, TrainingError
from autogaze.training.state import Averaged, Progress, check_unused, load_state, save_state
from autogaze.training.stopping import stopping_on_sigterm, telling_errors

LOG = logging.getLogger(__name__)
FRESH = AutoGazeConfig(
    gazing_ratio_config={"sample_strategy_during_inference": "fixed", "fixed": {"gazing_ratio": 0.75}},
    has_task_loss_requirement_during_inference=True,
    task_loss_requirement_config={
        "sample_strategy_during_inference": "fixed",
        "fixed": {"task_loss_requirement": 0.025},
    },
)
"""The published shape, and limits in the unit of the labels for callers who name none."""
VALIDATION_BATCH = 16
MAX_UNREADABLE = 100
"""So many recipes in a row without a clip end a run."""


class Run:
    """One sitting of a next-token run."""

    def __init__(self, settings: NTPSettings) -> None:
        """Set up the model, or load it with its state.

        Raises:
            CheckpointError: ``init`` or the state cannot be loaded.
            TrainingError: there is a state in ``out``, and the run is not to go on from it.
        """
        self.settings = settings
        self.device = settings.torch_device()
        self._started = time.monotonic()
        if not settings.resume:
            check_unused(settings.out)
        settings.out.mkdir(parents=True, exist_ok=True)
        self.model = _fresh_model(settings).to(self.device).train()
        if settings.compile:
            for layer in self.model.gazing_model.gaze_decoder.model.layers:
                layer.compile(dynamic=True)
        self.averaged = Averaged(self.model, decay=settings.average)
        self.optimizer = settings.optimizer(self.model)
        loaded = None
        if settings.resume:
            loaded = load_state(
                settings.out / "state", model=self.model, averaged=self.averaged, optimizer=self.optimizer
            )
        self._before = loaded or Progress()
        self.step = self._before.step
        config = self.model.config
        self.shape = ClipShape(grid=config.grid, frames=config.max_num_frames)
        refill = min(settings.pool, self._before.clips)
        self.pool = ClipPool(settings.pool, self.shape, device=self.device, added=self._before.clips - refill)
        self.validation: list[Batch] = []
        self.must_stop = False
        """Set it and the sitting ends after the step."""
        self._waited = 0.0
        self._unreadable: set[str] = set()

    # Clock

    @property
    def seconds(self) -> float:
        """Seconds of this sitting."""
        return time.monotonic() - self._started

    @property
    def progress(self) -> Progress:
        """How far the run is."""
        return Progress(
            step=self.step,
            seconds=self._before.seconds + self.seconds,
            clips=self.pool.added,
            oldest_recipe=self.pool.oldest_recipe if len(self.pool) else self._before.oldest_recipe,
        )

    @property
    def share(self) -> float:
        """How much of the whole run is done."""
        return self.settings.share_done(step=self.step, seconds=self._before.seconds + self.seconds)

    @property
    def is_over(self) -> bool:
        """Whether this sitting ends here."""
        return self.must_stop or self.share >= 1 or self.seconds >= 60 * self.settings.minutes

    # Data

    def recipes(self) -> Iterator[ClipRecipe]:
        """First those to validate on, then those to train on, from where the pool has to be filled again."""
        mix = ClipMix(
            videos=find_videos(self.settings.videos),
            images=find_images(self.settings.images),
            seed=self.settings.seed,
            max_gazes=self.settings.max_gazes,
        )
        training = (mix.recipe(number) for number in itertools.count(self._before.oldest_recipe))
        return itertools.chain(validation_recipes(find_videos(self.settings.val)), training)

    def _read_validation(self, stream: ClipStream[Label]) -> None:
        clips: list[LabelledClip[Label]] = []
        for _ in find_videos(self.settings.val):
            clip = next(stream)
            if isinstance(clip, Unreadable):
                self._tell_unreadable(clip)
            else:
                clips.append(LabelledClip(recipe=clip.recipe, rgb=np.array(clip.rgb), label=clip.label))
        for first in range(0, len(clips), VALIDATION_BATCH):
            part = clips[first : first + VALIDATION_BATCH]
            rgb = torch.from_numpy(np.stack([clip.rgb for clip in part])).to(self.device)
            self.validation.append(collate(rgb, [clip.label for clip in part]))

    def _fill(self, stream: ClipStream[Label], wanted: int) -> None:
        """Take clips until ``wanted`` have come."""
        before, misses = time.monotonic(), 0
        while self.pool.added < wanted and not self.must_stop:
            clip = next(stream)
            if isinstance(clip, Unreadable):
                self._tell_unreadable(clip)
                misses += 1
                if misses == MAX_UNREADABLE:
                    raise TrainingError(f"none of {misses} clips in a row could be made; the last: {clip.message}")
                continue
            misses = 0
            self.pool.add(clip)
        self._waited += time.monotonic() - before

    def _tell_unreadable(self, clip: Unreadable) -> None:
        if str(clip.recipe.path) not in self._unreadable:
            self._unreadable.add(str(clip.recipe.path))
            self.log("unreadable", path=str(clip.recipe.path), message=clip.message)

    # The loop

    def train(self) -> None:
        """Train until the sitting is over, then write checkpoint and state.

        Raises:
            TrainingError: a loss is not a number; the last state and checkpoint stay as they are.
        """
        settings = self.settings
        with ClipStream(
            self.recipes(),
            self.shape,
            labeller=GreedyLabeller(grid=self.shape.grid),
            workers=settings.num_workers(),
            ahead=min(512, 4 * settings.batch),
            cache_bytes=int(settings.cache_gb * 1e9),
        ) as stream:
            self._read_validation(stream)
            self._fill(stream, self._before.clips)
            self.log("start", settings={name: str(value) for name, value in asdict(settings).items()})
            last_log, last_save = (self.step, self.seconds, self._waited), self.seconds
            while not self.is_over:
                self._fill(stream, settings.clips_wanted(self.step))
                if self.must_stop:
                    break
                terms, norm = self._one_step()
                if self.step % settings.log_every == 0:
                    last_log = self._log_step(terms, norm, last_log)
                if self.seconds - last_save > 60 * settings.save_minutes and not self.is_over:
                    self._check(terms)
                    self.save()
                    last_save = self.seconds
            if self.step > self._before.step:
                self._check(terms)
            self.save()

    def _one_step(self) -> tuple[Terms, Tensor]:
        settings = self.settings
        rate = settings.learning_rate(step=self.step, share=self.share)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        batch = self.pool.draw(settings.batch, np.random.default_rng([settings.seed, self.step, 1]))
        terms = score(self.model, batch, settings)
        self.optimizer.zero_grad(set_to_none=True)
        total = terms.gaze + settings.loss_weight * terms.loss
        total.backward()  # type: ignore[no-untyped-call]
        head = self.model.gazing_model.gaze_decoder.task_loss_prediction_head
        # The head's own gradient is hundreds of times larger, since losses are small: together it would drown the rest.
        nn.utils.clip_grad_norm_(head.parameters(), settings.clip_norm)
        others = (parameter for parameter in self.model.parameters() if parameter is not head.weight)
        norm = nn.utils.clip_grad_norm_(others, settings.clip_norm)
        self.optimizer.step()
        self.step += 1
        self.averaged.update(self.model, step=self.step)
        return terms, norm

    def _check(self, terms: Terms) -> None:
        if not math.isfinite(terms.gaze.item() + terms.loss.item()):
            raise TrainingError(
                f"the loss is not a number at step {self.step}; {self.settings.out} has the last good state: "
                f"go on from it with --resume and a lower --peak-lr"
            )

    def _log_step(self, terms: Terms, norm: Tensor, last: tuple[int, float, float]) -> tuple[int, float, float]:
        self._check(terms)
        step, seconds, waited = self.step, self.seconds, self._waited
        spent = max(seconds - last[1], 1e-9)
        self.log(
            "step",
            share=self.share,
            lr=self.optimizer.param_groups[0]["lr"],
            gaze=terms.gaze.item(),
            loss=terms.loss.item(),
            loss_bias=terms.loss_bias.item(),
            grad_norm=norm.item(),
            clips_per_second=(step - last[0]) * self.settings.batch / spent,
            waiting_share=(waited - last[2]) / spent,
        )
        return step, seconds, waited

    def log(self, event: str, **values: Any) -> None:
        """Add a line to ``log.jsonl``."""
        line = {"event": event, "step": self.step, "seconds": round(self._before.seconds + self.seconds, 2), **values}
        with (self.settings.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in line.items()}
        LOG.info(" ".join(f"{name}={value}" for name, value in shown.items() if name != "settings"))

    def save(self) -> None:
        """Write the averaged weights as a checkpoint, what is needed to go on, and how well they do."""
        averaged = AutoGaze(self.model.config).to(self.device)
        averaged.load_state_dict(self.averaged.weights)
        for name, model in (("averaged", averaged), ("latest", self.model)):
            if self.validation:
                self.log("validation", weights=name, **self.validate(model))
        averaged.save_pretrained(self.settings.out / "checkpoint")
        state = self.settings.out / "state"
        save_state(state, model=self.model, averaged=self.averaged, optimizer=self.optimizer, progress=self.progress)

    @torch.no_grad()
    def validate(self, model: AutoGaze) -> dict[str, float]:
        """Mean terms on the validation clips, each gaze counted once."""
        sums = dict.fromkeys(("gaze", "loss", "loss_bias"), 0.0)
        gazes = 0
        for batch in self.validation:
            terms, count = score(model, batch, self.settings), int(batch.kept_BN.sum())
            gazes += count
            for name in sums:
                sums[name] += count * float(getattr(terms, name))
        return {name: value / gazes for name, value in sums.items()}


def _fresh_model(settings: NTPSettings) -> AutoGaze:
    if settings.init is not None:
        return AutoGaze.from_pretrained(settings.init)
    model = AutoGaze(FRESH)
    model.gazing_model.init_weights(torch.Generator().manual_seed(settings.seed))
    # Losses are a few hundredths: a head that starts at random would drown the gazes for the first steps.
    nn.init.zeros_(model.gazing_model.gaze_decoder.task_loss_prediction_head.weight)
    return model


def main() -> None:
    """Run from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    with telling_errors():
        run = Run(tyro.cli(NTPSettings, description=__doc__))
        with stopping_on_sigterm(run):
            run.train()


if __name__ == "__main__":
    main()
