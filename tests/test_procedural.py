"""Clips drawn from their seed alone."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from autogaze.datasets.pages import draw_page
from autogaze.datasets.procedural import draw_clip, film_noise, pan
from autogaze.datasets.recipes import Kind
from autogaze.datasets.sprites import Sprite, make_sprite
from autogaze.datasets.textures import draw_texture
from clip_samples import recipe

KINDS: tuple[Kind, ...] = ("sprites", "text", "pan", "scenes")


@pytest.mark.parametrize("kind", KINDS)
def test_a_drawn_clip_depends_on_its_number_alone(kind: Kind) -> None:
    clips = [draw_clip(recipe(kind, number, None), frames=6, side_px=64) for number in range(8)]
    assert all(clip.shape == (6, 64, 64, 3) and clip.dtype == np.uint8 for clip in clips)
    assert np.array_equal(clips[3], draw_clip(recipe(kind, 3, None), frames=6, side_px=64))
    assert len({clip.tobytes() for clip in clips}) == 8
    moving = sum(not np.array_equal(clip[0], clip[-1]) for clip in clips)
    assert moving >= 4, "most clips must move"
    assert sum(clip.std() > 10 for clip in clips) >= 6, "most clips must show something"


@pytest.mark.parametrize(("frames", "side_px"), [(1, 16), (2, 32), (3, 48), (40, 32)])
def test_any_size_can_be_drawn(frames: int, side_px: int) -> None:
    for kind in KINDS:
        for number in range(6):
            clip = draw_clip(recipe(kind, number, None), frames=frames, side_px=side_px)
            assert clip.shape == (frames, side_px, side_px, 3)


def test_kinds_of_files_are_not_drawn() -> None:
    with pytest.raises(ValueError, match="video is not drawn; drawn are sprites, text, pan and scenes"):
        draw_clip(recipe("video"), frames=2, side_px=32)


def test_scenes_are_cut_once_or_dissolved() -> None:
    cut = 0
    for number in range(12):
        clip = draw_clip(recipe("scenes", number, None), frames=16, side_px=64).astype(float)
        change = np.abs(np.diff(clip, axis=0)).mean((1, 2, 3))
        cut += change.max() > 4 * np.median(change) and change.max() > 10
    assert cut >= 6


def test_a_camera_never_sees_past_its_surface(monkeypatch: pytest.MonkeyPatch) -> None:
    def bright(rng: np.random.Generator, **_: object) -> np.ndarray:
        return np.full((128, 128, 3), 200, np.uint8)

    monkeypatch.setattr("autogaze.datasets.procedural.draw_texture", bright)
    monkeypatch.setattr("autogaze.datasets.procedural.make_sprite", lambda *_, **__: NOTHING)
    for seed in range(60):
        assert (pan(np.random.default_rng(seed), frames=32, side_px=64) == 200).all()


NOTHING = Sprite(
    image=Image.new("RGBA", (4, 4)), x_T=np.zeros(1), y_T=np.zeros(1), angle_T=np.zeros(1), zoom_T=np.ones(1)
)


def test_sprites_are_pasted_where_they_are_also_between_pixels() -> None:
    image = Image.new("RGBA", (25, 15), (255, 255, 255, 0))
    image.paste((255, 255, 255, 255), (2, 2, 23, 13))
    for angle, zoom in ((0.0, 1.0), (0.7, 1.0), (2.0, 1.5)):
        places = np.array([32.0, 32.25, 40.5, 20.0])
        sprite = Sprite(image=image, x_T=places, y_T=places[::-1], angle_T=np.full(4, angle), zoom_T=np.full(4, zoom))
        for t in range(4):
            frame = Image.new("RGB", (64, 64))
            sprite.paste(frame, t)
            weight = np.asarray(frame, float)[..., 0]
            grid = np.arange(64) + 0.5
            assert (weight.sum(0) @ grid) / weight.sum() == pytest.approx(sprite.x_T[t], abs=0.15)
            assert (weight.sum(1) @ grid) / weight.sum() == pytest.approx(sprite.y_T[t], abs=0.15)
            assert weight.sum() / 255 == pytest.approx(21 * 11 * zoom**2, rel=0.1)


def test_sprites_turn_clockwise_with_the_angle() -> None:
    image = Image.new("RGBA", (31, 5))
    image.paste((255, 255, 255, 255), (20, 0, 31, 5))  # its right end
    one = np.ones(1)
    frame = Image.new("RGB", (64, 64))
    Sprite(image=image, x_T=32 * one, y_T=32 * one, angle_T=np.pi / 2 * one, zoom_T=one).paste(frame, 0)
    weight = np.asarray(frame, float)[..., 0]
    assert weight[36:, 26:38].sum() > 0.9 * weight.sum()


def test_sprites_out_of_sight_change_nothing() -> None:
    for place in (-100.0, 200.0):
        sprite = make_sprite(np.random.default_rng(0), frames=1, side_px=32)
        frame = Image.new("RGB", (32, 32), (9, 9, 9))
        Sprite(
            image=sprite.image, x_T=np.array([place]), y_T=np.array([16.0]), angle_T=np.zeros(1), zoom_T=np.ones(1)
        ).paste(frame, 0)
        assert (np.asarray(frame) == 9).all()


def test_noise_is_another_on_each_frame_and_has_no_tint() -> None:
    clip = np.full((6, 64, 64, 3), 128, np.uint8)
    noisy = film_noise(np.random.default_rng(2), clip)
    assert len({frame.tobytes() for frame in noisy}) == 6
    assert (noisy == noisy[..., :1]).all()
    assert abs(noisy.mean() - 128) < 1 and 0.5 < noisy.std() < 10
    assert (film_noise(np.random.default_rng(2), np.full_like(clip, 255)) > 200).all(), "no value may wrap around"


def test_pages_have_ink_from_top_to_bottom() -> None:
    inked = [draw_page(np.random.default_rng(seed), height_px=200, width_px=120) for seed in range(10)]
    rows = [(np.ptp(page.astype(int), axis=(1, 2)) > 40) for page in inked]
    assert all(page.shape == (200, 120, 3) for page in inked)
    assert np.mean([row[:100].mean() > 0.2 and row[100:].mean() > 0.2 for row in rows]) > 0.7


@pytest.mark.parametrize("size", [(4, 4), (5, 90), (90, 5), (64, 64)])
def test_textures_have_any_size(size: tuple[int, int]) -> None:
    for seed in range(20):
        assert draw_texture(np.random.default_rng(seed), height_px=size[0], width_px=size[1]).shape == (*size, 3)
