"""Short training clips from videos and still images, each decided by a seed alone."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from autogaze.datasets.labels import LabelRule
from autogaze.errors import VideoError
from autogaze.selectors.cells import Pixels, resize
from autogaze.video import find_sources, open_video
from autogaze.video_sources import IMAGE_SUFFIXES

# Shape letters: T frames, S pixels a side of a clip's frame, H × W pixels of a source's frame.

Kind = Literal["video", "still", "cut", "scan", "whole"]
"""A window of a video; one frame of it, repeated; two windows of it, joined; a ride over an image; the
beginning of a video, uncropped, for validation."""

SHORTER_SIDE_PX = 320
"""Larger videos are kept no larger than this, so that many fit into memory."""
MAX_FRAMES = 1200
"""Only the first frames of a longer video are used; cut long videos into pieces to use all of them."""
SLOWEST_FPS = 5.0
"""No frames are left out that would bring a clip below this rate."""


@dataclass(frozen=True, kw_only=True)
class ClipRecipe:
    """Everything that decides one labelled clip."""

    number: int
    """Place in the sequence of recipes."""
    path: Path
    """Video or image."""
    kind: Kind
    """What is made of it."""
    seed: int
    """With ``number`` the seed of every draw."""
    rule: LabelRule
    """How the clip is labelled."""

    def rng(self, purpose: int) -> np.random.Generator:
        """The source of draws for one purpose."""
        return np.random.default_rng([self.seed, self.number, purpose])


@dataclass(frozen=True, kw_only=True)
class ClipMix:
    """What training clips are made of; recipe number n depends on the seed and n alone.

    Raises:
        ValueError: there is neither a video nor an image.
    """

    videos: tuple[Path, ...]
    """Video files."""
    images: tuple[Path, ...] = ()
    """Images to ride over."""
    seed: int = 0
    """Seed of every draw."""
    scans: float = 0.15
    """Share of clips that ride over images, where there are both images and videos."""
    stills: float = 0.06
    """Share of the clips of videos that hold (nearly) still."""
    cuts: float = 0.06
    """Share of the clips of videos with a cut in them."""
    thresholds: tuple[float, float] = (0.008, 0.06)
    """Range of the threshold at which frames end, drawn evenly on a log scale."""
    max_gazes: int = 1024
    """Most gazes of a clip."""
    clean: float = 0.5
    """Share of the clips labelled without slips."""
    max_slip: float = 0.3
    """The others slip at a rate drawn evenly up to this."""

    def __post_init__(self) -> None:
        if not self.videos and not self.images:
            raise ValueError("training clips need at least one video or image, got none")

    def recipe(self, number: int) -> ClipRecipe:
        """Recipe ``number``."""
        rng = np.random.default_rng([self.seed, number, 0])
        from_image, choice, special, threshold, clean, slip = rng.random(6)
        scan = not self.videos or (bool(self.images) and from_image < self.scans)
        paths = self.images if scan else self.videos
        kind: Kind = "video"
        if scan:
            kind = "scan"
        elif special < self.stills:
            kind = "still"
        elif special < self.stills + self.cuts:
            kind = "cut"
        low, high = np.log(self.thresholds)
        rule = LabelRule(
            threshold=float(np.exp(low + (high - low) * threshold)),
            max_gazes=self.max_gazes,
            slip=0.0 if clean < self.clean else self.max_slip * slip,
        )
        return ClipRecipe(number=number, path=paths[int(choice * len(paths))], kind=kind, seed=self.seed, rule=rule)


def validation_recipes(
    videos: tuple[Path, ...], *, thresholds: tuple[float, ...] = (0.012, 0.018, 0.025, 0.035)
) -> list[ClipRecipe]:
    """The beginning of each video, labelled without slips at one of the thresholds in turn."""
    return [
        ClipRecipe(
            number=place,
            path=path,
            kind="whole",
            seed=0,
            rule=LabelRule(threshold=thresholds[place % len(thresholds)]),
        )
        for place, path in enumerate(videos)
    ]


def find_videos(folder: str | os.PathLike[str] | None) -> tuple[Path, ...]:
    """The videos of a folder in the order of their names; none for None."""
    return () if folder is None else tuple(Path(name) for name in find_sources([str(folder)]) if not _is_image(name))


def find_images(folder: str | os.PathLike[str] | None) -> tuple[Path, ...]:
    """The images right inside a folder in the order of their names; none for None."""
    return () if folder is None else tuple(path for path in sorted(Path(folder).iterdir()) if _is_image(path))


def _is_image(path: str | os.PathLike[str]) -> bool:
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


@dataclass(frozen=True, kw_only=True, eq=False)
class Footage:
    """A decoded source."""

    rgb: Pixels
    """(T, H, W, 3)."""
    fps: float
    """Frames a second; 1 for an image."""


class FootageCache:
    """Decoded sources, as many as fit into ``max_bytes``; the one unused for longest goes first."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._kept: OrderedDict[Path, Footage] = OrderedDict()

    def get(self, path: Path) -> Footage:
        """The frames of a video, or an image as its only frame.

        Raises:
            VideoError: it cannot be read.
        """
        if path not in self._kept:
            self._kept[path] = read_image(path) if _is_image(path) else read_video(path)
            while len(self._kept) > 1 and sum(footage.rgb.nbytes for footage in self._kept.values()) > self.max_bytes:
                self._kept.popitem(last=False)
        self._kept.move_to_end(path)
        return self._kept[path]


def read_video(path: Path) -> Footage:
    """The first frames of a video, its shorter side at most ``SHORTER_SIDE_PX``.

    Raises:
        VideoError: it cannot be read.
    """
    parts, count = [], 0
    with open_video(path, window_frames=32) as reader:
        shrink = max(1.0, min(reader.height_px, reader.width_px) / SHORTER_SIDE_PX)
        height_px, width_px = round(reader.height_px / shrink), round(reader.width_px / shrink)
        for frames in reader:
            parts.append(resize(frames.rgb, height_px, width_px))
            count += len(frames)
            if count >= MAX_FRAMES:
                break
        return Footage(rgb=np.concatenate(parts)[:MAX_FRAMES], fps=reader.fps)


def read_image(path: Path) -> Footage:
    """An image as a video of one frame.

    Raises:
        VideoError: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            return Footage(rgb=np.asarray(image.convert("RGB"))[None], fps=1.0)
    except (OSError, Image.DecompressionBombError) as error:
        raise VideoError(f"{path} cannot be read as an image: {error}") from error


def render(recipe: ClipRecipe, footage: Footage, *, frames: int = 16, side_px: int = 224) -> Pixels:
    """The (T, S, S, 3) clip of a recipe."""
    if recipe.kind == "whole":
        return _whole(footage, frames, side_px)
    rng = recipe.rng(1)
    if recipe.kind == "scan":
        clip = scan(footage.rgb[0], rng, frames=frames, side_px=side_px)
    elif recipe.kind == "still":
        clip = _still(footage, rng, frames, side_px)
    else:
        clip = window(footage, rng, frames=frames, side_px=side_px)
        if recipe.kind == "cut":
            after = int(rng.integers(2, frames - 1)) if frames > 3 else 1
            clip[after:] = window(footage, rng, frames=frames, side_px=side_px)[after:]
    if rng.random() < 0.5:
        clip = clip[:, :, ::-1]
    if rng.random() < 0.5:
        clip = _tone(clip, rng)
    return np.ascontiguousarray(clip)


def window(footage: Footage, rng: np.random.Generator, *, frames: int, side_px: int) -> Pixels:
    """A random window in time, cropped at random: a quarter of the time not at all, else to 0.5–1 of the height."""
    T, H, W, _ = footage.rgb.shape
    strides = [s for s in (1, 2, 3, 4) if footage.fps / s >= SLOWEST_FPS and (frames - 1) * s < T]
    stride = int(rng.choice(strides)) if strides else 1
    last = T - 1 - (frames - 1) * stride
    numbers = _there_and_back(int(rng.integers(0, max(last, 0) + 1)) + stride * np.arange(frames), T)
    left, top, width, height = 0.0, 0.0, float(W), float(H)
    if rng.random() >= 0.25:
        height = min(H, W) * rng.uniform(0.5, 1.0)
        width = min(W, height * np.exp(rng.uniform(np.log(0.75), np.log(1.8))))
        left, top = rng.uniform(0, W - width), rng.uniform(0, H - height)
    box = (left, top, left + width, top + height)
    return np.stack([_crop(footage.rgb[number], box, side_px) for number in numbers])


def scan(rgb: Pixels, rng: np.random.Generator, *, frames: int, side_px: int) -> Pixels:
    """A window that moves over an (H, W, 3) image in a random direction and grows or shrinks a little."""
    H, W, _ = rgb.shape
    zoom = np.geomspace(1, np.exp(rng.uniform(-0.3, 0.3)), frames) if rng.random() < 0.5 else np.ones(frames)
    sides = np.minimum(min(H, W) * rng.uniform(0.2, 0.9) * zoom, min(H, W))
    angle, distance = rng.uniform(0, 2 * np.pi), sides[0] * rng.uniform(0, 0.8)
    # From rest to full speed and back on some rides, at an even speed on others.
    steps = np.linspace(0, 1, frames)
    steps = steps if rng.random() < 0.5 else (1 - np.cos(np.pi * steps)) / 2
    middle_x = rng.uniform(0, W) + np.cos(angle) * distance * steps
    middle_y = rng.uniform(0, H) + np.sin(angle) * distance * steps
    # Back at the borders, so that a ride that starts beside one goes along it.
    left = (middle_x - sides / 2).clip(0, W - sides)
    top = (middle_y - sides / 2).clip(0, H - sides)
    boxes = np.stack([left, top, left + sides, top + sides], axis=1).tolist()
    return np.stack([_crop(rgb, tuple(box), side_px) for box in boxes])


def _still(footage: Footage, rng: np.random.Generator, frames: int, side_px: int) -> Pixels:
    """One frame again and again; half of the time with fresh noise on each."""
    one = replace(footage, rgb=footage.rgb[int(rng.integers(len(footage.rgb)))][None])
    clip = window(one, rng, frames=1, side_px=side_px).repeat(frames, axis=0)
    if rng.random() < 0.5:
        return clip
    noise = rng.normal(0, rng.uniform(0.5, 4), clip.shape).astype(np.float32)
    noisy: Pixels = (clip + noise).round().clip(0, 255).astype(np.uint8)
    return noisy


def _whole(footage: Footage, frames: int, side_px: int) -> Pixels:
    """The first frames, every second one where there are enough, squeezed into the square."""
    T, H, W, _ = footage.rgb.shape
    stride = 2 if 2 * frames <= T else 1
    numbers = _there_and_back(stride * np.arange(frames), T)
    return np.stack([_crop(footage.rgb[number], (0, 0, W, H), side_px) for number in numbers])


def _there_and_back(numbers: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Frame numbers past the end walk back, and forth again."""
    if length == 1:
        return np.zeros_like(numbers)
    inside: NDArray[np.int64] = length - 1 - np.abs(numbers % (2 * length - 2) - (length - 1))
    return inside


def _crop(rgb: Pixels, box: tuple[float, ...], side_px: int) -> Pixels:
    left, top, right, bottom = box
    small = Image.fromarray(rgb).resize((side_px, side_px), Image.Resampling.BILINEAR, (left, top, right, bottom))
    return np.asarray(small)


def _tone(clip: Pixels, rng: np.random.Generator) -> Pixels:
    """Other contrast, brightness and gamma, the same on all frames."""
    contrast, brightness, gamma = rng.uniform(0.6, 1.25), rng.uniform(-0.12, 0.12), np.exp(rng.uniform(-0.3, 0.3))
    level = (np.arange(256) / 255) ** gamma
    table = ((level - 0.5) * contrast + 0.5 + brightness).clip(0, 1) * 255
    toned: Pixels = table.round().astype(np.uint8)[clip]
    return toned
