"""The loop: clips, passes, one step of the optimiser, log, validation, state. One process or several."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic

import torch
from torch import Tensor, nn

from autogaze.datasets.stream import LabelledClip
from autogaze.errors import TrainingError
from autogaze.training.journal import LOG, RunLog
from autogaze.training.processes import Processes
from autogaze.training.run_settings import FREE, RunSettings
from autogaze.training.stage import BatchT, ClipT, Feed, Moment, Share, Stage
from autogaze.training.state import (
    Averaged,
    Progress,
    check_place,
    has_state,
    load_state,
    only_run_in,
    prune_pictures,
    replace_folder,
    save_state,
    tidy_folder,
)

OnProgress = Callable[[float, str], None]
"""Told how much of the run is done (0 to 1) and a few words."""


class Trainer(Generic[ClipT, BatchT]):
    """One sitting of a run.

    Every draw is made from seed and step, so a run that goes on from its state takes the steps it would have taken.
    """

    def __init__(
        self,
        settings: RunSettings,
        processes: Processes,
        stage: Stage[ClipT, BatchT],
        *,
        on_progress: OnProgress | None = None,
        say: Callable[[str], None] = LOG.info,
    ) -> None:
        """Set up the optimiser, or load it with the weights.

        Raises:
            CheckpointError: the state cannot be loaded, or is of another model.
            OutputError: ``out`` is no folder, or files cannot be made in it.
            TrainingError: there is a state in ``out`` and the run is not to go on from it.
        """
        self.settings, self.processes, self.stage = settings, processes, stage
        self._started = time.monotonic()
        check_place(settings.out, resume=settings.resume)
        settings.out.mkdir(parents=True, exist_ok=True)
        self.log = RunLog(settings.out, processes, say=say)
        if processes.is_main:
            for name in ("checkpoint", "best"):
                tidy_folder(settings.out / name)
        self._on_progress = on_progress or (lambda share, words: None)
        self._groups = list(stage.groups())
        self.optimizer = self._optimizer()
        processes.share_weights(stage.module)
        self.averaged = Averaged(stage.module, decay=settings.average)
        loaded = None
        if settings.resume:
            loaded = load_state(self._states, model=stage.module, averaged=self.averaged, optimizer=self.optimizer)
        self._before = loaded or Progress()
        self.step, self.best, self._best_step = self._before.step, self._before.best, self._before.best_step
        self._data = settings.data() if processes.is_main else {}
        self.must_stop = False
        """Set it and the sitting ends after the step."""
        self._unseen: list[tuple[int, Tensor, str]] = []
        self._has_learned = False
        self._told: set[str] = set()
        self._waited = 0.0

    @property
    def seconds(self) -> float:
        """Seconds of this sitting."""
        return time.monotonic() - self._started

    @property
    def moment(self) -> Moment:
        """Where the run is; the same in all processes."""
        seconds = self._before.seconds + self.seconds
        if self.settings.by_clock:
            seconds = self.processes.from_main(seconds)
        return Moment(step=self.step, share=self.settings.share_done(step=self.step, seconds=seconds))

    @property
    def _states(self) -> Path:
        return self.settings.out / "state"

    def run(self) -> None:
        """Train until the sitting is over, then write checkpoint and state.

        Raises:
            TrainingError: another run is writing into ``out``; or a loss is not a number, and the last state and
                checkpoint stay as they are; or there was no clip at all.
        """
        settings = self.settings
        self.stage.module.train()
        share = Share(rank=self.processes.rank, world=self.processes.world, first_step=self.step)
        alone = only_run_in(settings.out) if self.processes.is_main else nullcontext()
        with alone, self.stage.feed(share) as feed:
            self._tell_start()
            mark = _Mark(step=self.step, seconds=self.seconds, waited=0.0)
            saved = self.step, self.seconds
            while not self._is_over(moment := self.moment):
                values, norm = self._one_step(feed, moment)
                if self.step % settings.log_every == 0:
                    self._tell_unreadable(feed)
                    mark = self._log_step(values, norm, moment, mark)
                self._on_progress(moment.share, f"step {self.step}")
                if self._is_time_to_save(saved):
                    self._save()
                    saved = self.step, self.seconds
            self._tell_unreadable(feed)
            if self.step > self._before.step and not self._has_learned:
                raise TrainingError(f"no step had a clip to learn from: {_first(feed.unreadable)}; check the folders")
            if self.step > saved[0] or self.step == self._before.step:
                self._save()
        self.log.event("end", step=self.step, seconds=self._total_seconds)

    # One step

    def _one_step(self, feed: Feed[ClipT], moment: Moment) -> tuple[Tensor, Tensor]:
        """Total and values of the whole step, (1 + V,), and the length of the gradient."""
        settings, processes, stage = self.settings, self.processes, self.stage
        # What layers draw, if they draw anything, follows from the step too.
        torch.manual_seed((settings.seed * 2**40 + self.step * processes.world + processes.rank) % 2**63)
        before = time.monotonic()
        clips = feed.step()
        self._waited += time.monotonic() - before
        batches = [stage.prepare(part, moment) for part in _parts(clips, settings.passes)]
        units = torch.zeros(stage.num_units, device=processes.device)
        for batch in batches:
            units += stage.units(batch)
        units = processes.total(units)
        rate = settings.learning_rate(step=self.step, share=moment.share)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        self.optimizer.zero_grad(set_to_none=True)
        values = torch.zeros(1 + len(stage.value_names), device=processes.device)
        for batch in batches:
            with processes.autocast():
                terms = stage.terms(batch, units)
            terms.total.backward()  # type: ignore[no-untyped-call]
            values += torch.cat([terms.total.detach().reshape(1), terms.values]).float()
        values = processes.total(values)
        processes.add_gradients(stage.module.parameters())
        norm, others = self._shorten()
        self._watch(torch.cat([values, norm.reshape(1), others.reshape(1)]), clips)
        if processes.any(bool(clips)):  # else momentum alone would move the weights
            self.optimizer.step()
            self._has_learned = True
        self.step += 1
        self.averaged.update(stage.module, step=self.step)
        return values, norm

    def _shorten(self) -> tuple[Tensor, Tensor]:
        """Clip the gradients; the length of those that are clipped together, and the sum of the others' lengths."""
        together: list[nn.Parameter] = []
        others = torch.zeros((), device=self.processes.device)
        for group in self._groups:
            if group.clipped_by_themselves:
                others += nn.utils.clip_grad_norm_(group.parameters, self.settings.clip_norm)
            else:
                together += group.parameters
        return nn.utils.clip_grad_norm_(together, self.settings.clip_norm), others

    def _watch(self, values: Tensor, clips: Sequence[ClipT]) -> None:
        """Remember what a step said until somebody looks; on a CPU looking costs nothing."""
        self._unseen.append((self.step, values, _sources(clips)))
        if values.device.type == "cpu":
            self._check()

    def _check(self) -> None:
        """Stop where a loss or the length of a gradient was not a number.

        Raises:
            TrainingError: one was.
        """
        unseen, self._unseen = self._unseen, []
        for step, values, sources in unseen:
            numbers = values.tolist()
            if all(math.isfinite(number) for number in numbers):
                continue
            names = ("loss", *self.stage.value_names, "grad_norm", "grad_norm of parameters clipped by themselves")
            bad = [name for name, number in zip(names, numbers, strict=True) if not math.isfinite(number)]
            self.log.event("stopped", step=step, seconds=self._total_seconds, not_a_number=bad)
            raise TrainingError(
                f"{', '.join(bad)} is not a number at step {step} ({sources}); "
                + (
                    f"{self.settings.out} has the last good checkpoint and state: go on from it with --resume and a "
                    f"lower --peak-lr"
                    if has_state(self.settings.out)
                    else "nothing had been saved yet; start again with a lower --peak-lr"
                )
            )

    # Log, validation, state

    @property
    def _total_seconds(self) -> float:
        return self._before.seconds + self.seconds

    def _is_over(self, moment: Moment) -> bool:
        minutes = self.settings.minutes
        over = self.must_stop or (minutes is not None and self.seconds >= 60 * minutes)
        return moment.share >= 1 or self.processes.any(over)

    def _is_time_to_save(self, last: tuple[int, float]) -> bool:
        if self.settings.save_steps is not None:
            return self.step % self.settings.save_steps == 0
        return self.processes.from_main(self.seconds - last[1]) > 60 * self.settings.save_minutes

    @property
    def _plain_settings(self) -> dict[str, Any]:
        return {name: _plain(value) for name, value in asdict(self.settings).items()}

    def _tell_start(self) -> None:
        settings = self._plain_settings
        versions = {"torch": torch.__version__, "processes": self.processes.world, "device": str(self.processes.device)}
        self.log.event("start", step=self.step, seconds=self._before.seconds, settings=settings, **versions)
        was = self._before.settings
        told = {
            **_changes({name: value for name, value in was.items() if name not in FREE}, settings),
            **_changes(self._before.data, self._data),
        }
        if told:
            self.log.event("changed", step=self.step, seconds=self._before.seconds, **told)
        init = self.settings.init
        if was and init not in (None, was.get("init")):
            hint = f"the weights come from {self._states} and not from --init {init}; another --out starts from that"
            self.log.event("init_ignored", step=self.step, seconds=self._before.seconds, message=hint)
        if self.moment.share >= 1:
            hint = "nothing is left to do; a run that is to go on needs more --steps or --total-minutes"
            self.log.event("over", step=self.step, seconds=self._before.seconds, message=hint)
        self.processes.start_trackers(self.settings.project, {k: str(v) for k, v in settings.items()})

    def _tell_unreadable(self, feed: Feed[ClipT]) -> None:
        for path, message in self.processes.union(feed.unreadable).items():
            if path not in self._told:
                self._told.add(path)
                self.log.event(
                    "unreadable",
                    step=self.step,
                    seconds=self._total_seconds,
                    path=path,
                    message=message,
                    unreadable=len(self._told),
                )

    def _log_step(self, values: Tensor, norm: Tensor, moment: Moment, last: _Mark) -> _Mark:
        self._check()
        now = _Mark(step=self.step, seconds=self.seconds, waited=self._waited)
        spent = max(now.seconds - last.seconds, 1e-9)
        self.log.event(
            "step",
            step=self.step,
            seconds=self._total_seconds,
            share=moment.share,
            lr=self.optimizer.param_groups[0]["lr"] / self.optimizer.param_groups[0]["lr_scale"],
            **dict(zip(("loss", *self.stage.value_names), values.tolist(), strict=True)),
            grad_norm=float(norm),
            clips_per_second=(now.step - last.step) * self.settings.batch / spent,
            waiting_share=(now.waited - last.waited) / spent,
        )
        return now

    def _save(self) -> None:
        """Write the averaged weights as a checkpoint, how well they do, and what is needed to go on."""
        self._check()
        if self.processes.is_main:
            out, stage = self.settings.out, self.stage
            stage.module.eval()
            self._validate("latest", stage.module.state_dict())
            score = self._validate("averaged", self.averaged.weights)
            with replace_folder(out / "checkpoint") as folder:
                stage.save(self.averaged.weights, folder)
            if score is not None and score < self.best:
                self.best, self._best_step = score, self.step
                with replace_folder(out / "best") as folder:
                    stage.save(self.averaged.weights, folder)
            stage.draw(self.averaged.weights, out / "pictures" / f"step-{self.step:08d}")
            prune_pictures(out / "pictures", best_step=self._best_step)
            stage.module.train()
            save_state(
                self._states,
                model=stage.module,
                averaged=self.averaged,
                optimizer=self.optimizer,
                progress=Progress(
                    step=self.step,
                    seconds=self._total_seconds,
                    best=self.best,
                    best_step=self._best_step,
                    settings=self._plain_settings,
                    data=self._data,
                ),
                keep=self.settings.keep,
            )
        self.processes.wait()

    def _validate(self, name: str, weights: Mapping[str, Tensor]) -> float | None:
        validation = self.stage.validate(weights)
        if validation is None:
            return None
        self.log.event("validation", step=self.step, seconds=self._total_seconds, weights=name, **validation.values)
        return validation.values[validation.better_below]

    def _optimizer(self) -> torch.optim.AdamW:
        """AdamW; vectors are not decayed, and each group's ``lr_scale`` multiplies the learning rate."""
        groups = []
        for group in self._groups:
            for decays in (True, False):
                found = [p for p in group.parameters if (p.ndim > 1) == decays]
                decay = self.settings.weight_decay if decays else 0.0
                if found:
                    groups.append({"params": found, "lr_scale": group.lr_scale, "weight_decay": decay})
        fused = self.processes.device.type == "cuda"
        betas = (0.9, self.settings.beta2)
        return torch.optim.AdamW(groups, lr=self.settings.peak_lr, betas=betas, fused=fused)


@dataclass(frozen=True, kw_only=True)
class _Mark:
    """Where the log was last written."""

    step: int
    seconds: float
    waited: float


def _parts(clips: Sequence[ClipT], passes: int) -> list[Sequence[ClipT]]:
    """The clips of a step, divided as evenly as can be over its passes; none is empty."""
    count = min(passes, len(clips))
    edges = [round(k * len(clips) / count) for k in range(count + 1)] if count else []
    return [clips[first:last] for first, last in pairwise(edges)]


def _sources(clips: Sequence[object]) -> str:
    """Where the clips of a step come from, for those whose recipe is known."""
    known = [clip.recipe for clip in clips if isinstance(clip, LabelledClip)]
    paths = sorted({recipe.kind if recipe.path is None else recipe.path.name for recipe in known})
    return "clips of " + ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def _first(unreadable: Mapping[str, str]) -> str:
    return next(iter(unreadable.values()), "nothing was made")


def _changes(was: Mapping[str, object], now: Mapping[str, object]) -> dict[str, str]:
    """What both have and is not the same."""
    return {name: f"{was[name]} → {now[name]}" for name in now if name in was and was[name] != now[name]}


def _plain(value: object) -> object:
    """A setting as JSON has it."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)
