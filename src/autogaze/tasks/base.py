"""What every task is: something that says how much a selection is worth, frame by frame.

Shape letters: B clips, T frames, F frames that are judged, N gaze slots of all frames.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from autogaze.algorithms.stop_head import LossTargets
from autogaze.grid import PatchGrid
from autogaze.models.autogaze.processing_autogaze import AutoGazeImageProcessor
from autogaze.packing import PaddedGaze
from autogaze.tasks.judged import Selection, TaskBatch, last_gaze_targets, task_batch

_NOT_TASKS = ("base", "judged")


class Named:
    """A result whose values can be had as ``result["name"]`` too, as the published ones are."""

    def __getitem__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(self, name):
            raise KeyError(name)
        return getattr(self, name)


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskOutput(Named):
    """What a task made of a batch. Tasks with more to show add fields of their own."""

    loss_each_frame: Tensor
    """(B, F) float loss of each frame that is judged, with its graph; the lower, the better the selection so far. A
    task that judges whole clips judges the last frame."""
    frame_idx: Tensor
    """(F,) int64 those frames, in any order, none twice."""
    gaze: PaddedGaze
    """What was selected."""

    @property
    def loss(self) -> Tensor:
        """(B,) mean over the frames that are judged."""
        return self.loss_each_frame.mean(1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Reward:
    """What the selection earned, and by when."""

    reward_BF: Tensor
    """(B, F) minus the loss of each judged frame, without a graph."""
    num_slots_F: Tensor
    """(F,) int64 gaze slots, padding included, up to the end of each judged frame: those that share its reward."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskResult(Named):
    """All that a task says about a batch, under the published names."""

    outputs: Any
    """The :class:`TaskOutput`."""
    loss: Tensor
    """(B,) what training the task minimises."""
    reward: Tensor
    """See :attr:`Reward.reward_BF`."""
    traj_len_each_reward: Tensor
    """See :attr:`Reward.num_slots_F`."""
    task_losses: Tensor
    """See :attr:`LossTargets.loss_BN`."""
    task_losses_mask: Tensor
    """See :attr:`LossTargets.mask_BN`."""
    metrics: Mapping[str, Tensor]
    """Scalars for logs, by name, without a graph."""


class Task(nn.Module, ABC):
    """A video and a selection in; outputs, loss, reward, loss targets and metrics out.

    A task is one file: a module below ``autogaze.tasks``, or anywhere else, with a class that derives from this one
    and has :meth:`forward_output`. Everything else follows from the losses that says. :func:`load_task` finds it.
    Tasks run where the video is and in the dtype it has; mixed precision is the caller's ``torch.autocast``.
    """

    loss_name: ClassVar[str] = "task_loss"
    """What the mean loss is called among the metrics."""
    transform: AutoGazeImageProcessor
    """Turns frames into what the task sees."""
    recon_sample_rate: float = 1.0
    """Share of the frames that is judged where nobody says which."""

    @property
    @abstractmethod
    def grid(self) -> PatchGrid:
        """Patches of a frame that a selection is of."""

    @property
    def gaze_model_kwargs(self) -> dict[str, Any]:
        """What the gaze model is called with so that its selection fits: ``target_scales``, ``target_patch_size``."""
        return {"target_scales": list(self.grid.scales_px), "target_patch_size": self.grid.patch_px}

    def batch(
        self,
        inputs: Mapping[str, Any],
        gaze_outputs: Selection,
        frame_idx: Tensor | Sequence[int] | None,
        *,
        generator: torch.Generator | None = None,
    ) -> TaskBatch:
        """What :meth:`forward_output` was given, checked, with frames chosen if nobody did.

        Raises:
            ValueError: video, selection and frames do not fit together or the grid.
        """
        return task_batch(
            inputs,
            gaze_outputs,
            frame_idx,
            num_patches=self.grid.num_patches,
            sample_rate=self.recon_sample_rate,
            generator=generator,
        )

    @abstractmethod
    def forward_output(
        self,
        inputs: Mapping[str, Any],
        gaze_outputs: Selection,
        frame_idx_to_reconstruct: Tensor | Sequence[int] | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> TaskOutput:
        """Outputs and losses of a batch.

        Args:
            inputs: a batch; ``inputs["video_for_task"]`` is (B, T, 3, H, W).
            gaze_outputs: its selection.
            frame_idx_to_reconstruct: (F,) the frames that are judged; None: a random choice.
            generator: of that choice, on the CPU; None: torch's own.

        Raises:
            ValueError: video, selection and frames do not fit together or the task.
        """

    def loss(self, outputs: TaskOutput) -> Tensor:
        """(B,) what training the task itself minimises, with its graph."""
        return outputs.loss

    def reward(self, outputs: TaskOutput) -> Reward:
        """What the gaze model earned."""
        end_F = outputs.gaze.num_gazing_each_frame.cumsum(0)[outputs.frame_idx]
        return Reward(reward_BF=-outputs.loss_each_frame.detach(), num_slots_F=end_F)

    def loss_targets(self, outputs: TaskOutput) -> LossTargets:
        """What the gaze model's stop head should have said."""
        return last_gaze_targets(outputs.gaze, frame_idx=outputs.frame_idx, loss_BF=outputs.loss_each_frame)

    def metrics(self, outputs: TaskOutput) -> dict[str, Tensor]:
        """Mean loss, and the share of all patches of all frames that was kept."""
        gaze = outputs.gaze
        places = gaze.gazing_pos.shape[0] * len(gaze.num_gazing_each_frame) * gaze.num_vision_tokens_each_frame
        return {
            self.loss_name: outputs.loss.detach().mean(),
            "avg_gazing_ratio_per_frame": (~gaze.if_padded_gazing).sum() / places,
        }

    def forward(
        self,
        inputs: Mapping[str, Any],
        gaze_outputs: Selection,
        frame_idx_to_reconstruct: Tensor | Sequence[int] | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> TaskResult:
        """All of the above at once; see :meth:`forward_output` for the arguments.

        Raises:
            ValueError: see :meth:`forward_output`.
        """
        outputs = self.forward_output(inputs, gaze_outputs, frame_idx_to_reconstruct, generator=generator)
        reward, targets = self.reward(outputs), self.loss_targets(outputs)
        return TaskResult(
            outputs=outputs,
            loss=self.loss(outputs),
            reward=reward.reward_BF,
            traj_len_each_reward=reward.num_slots_F,
            task_losses=targets.loss_BN,
            task_losses_mask=targets.mask_BN,
            metrics=self.metrics(outputs),
        )


def load_task(name: str, **options: Any) -> Task:
    """A task by name.

    Args:
        name: of a module below ``autogaze.tasks``, whose class is called likewise but for capitals and underscores
            (``video_mae_reconstruction`` → ``VideoMAEReconstruction``); or ``module:Class`` for one that lies
            anywhere Python imports from.
        options: what the class takes.

    Raises:
        ValueError: there is no such task.
    """
    module_name, _, class_name = name.partition(":")
    if class_name:
        try:
            task_class = getattr(importlib.import_module(module_name), class_name, None)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise  # it is there, and something it needs is not
            raise ValueError(f"there is no module {module_name!r} to take task {class_name!r} from") from error
    else:
        if name not in task_names():
            raise ValueError(f"there is no task {name!r}; legal are {', '.join(task_names())}, or module:Class")
        module = importlib.import_module(f"{__package__}.{name}")
        wanted = name.replace("_", "")
        found = [each for each in getattr(module, "__all__", dir(module)) if each.lower() == wanted]
        task_class = getattr(module, found[0]) if found else None
    if not (isinstance(task_class, type) and issubclass(task_class, Task)):
        raise ValueError(f"{name!r} names no class that derives from {Task.__module__}.{Task.__name__}")
    return task_class(**options)


def task_names() -> tuple[str, ...]:
    """Modules below ``autogaze.tasks``, each of which is a task."""
    package = importlib.import_module(str(__package__))
    return tuple(
        sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name not in _NOT_TASKS)
    )
