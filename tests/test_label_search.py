"""Label search: budgets, judges, the definition and the lazy way to it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from autogaze.errors import AutoGazeError, BudgetError, CheckpointError
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.labelling.budgets import DrawnBudget, Limits, ThresholdBudget, clip_rng
from autogaze.labelling.expectations import Expectations
from autogaze.labelling.lazy import Lazy
from autogaze.labelling.promises import Promises
from autogaze.labelling.scorers import (
    CandidateScorer,
    CanvasClip,
    CanvasScorer,
    ClipScorer,
    RefinedScorer,
    Tried,
    VideoMAEScorer,
    make_scorer,
)
from autogaze.labelling.search import Exhaustive, Searched, search_clip
from autogaze.reconstructors import load_reconstructor, rebuild
from autogaze.reconstructors.refiner import Refiner, RefinerConfig
from autogaze.selectors.base import Budget
from autogaze.selectors.replenish import Replenish
from label_samples import GRID, LAYOUT, moving_clip
from small_video_mae import CONFIG, small_video_mae


def refiner() -> Refiner:
    """Random weights that change a lot."""
    torch.manual_seed(0)
    network = Refiner(RefinerConfig(scales_px=GRID.scales_px, widths=(8, 8))).eval()
    torch.nn.init.normal_(network.head.weight, std=0.3)
    return network


def mae_clip(frames: int = 3, seed: int = 0) -> np.ndarray:
    return moving_clip(frames, side_px=32, seed=seed)


class TestBudgets:
    def test_drawn_ratios_are_those_of_the_paper(self) -> None:
        budget, rng = DrawnBudget(), np.random.default_rng(0)
        # So many patches that rounding down plays no part.
        counts = np.array([budget.limits(rng, frames=16, num_patches=10**6).counts for _ in range(4000)]) / 1e6
        means = counts.mean(1)
        assert means.min() >= 0.02 - 1e-6 and means.max() <= 0.2
        # Mean of the exponential with rate 10, restricted to [0.02, 0.2], by integration.
        ratio = np.linspace(0.02, 0.2, 100_001)
        density = np.exp(-10 * ratio)
        assert means.mean() == pytest.approx((ratio * density).sum() / density.sum(), abs=0.002)
        assert np.median(means) == pytest.approx(-np.log((np.exp(-0.2) + np.exp(-2)) / 2) / 10, abs=0.003)
        shares = counts / counts.sum(1, keepdims=True)
        expected = np.array([10] + [3] * 15) / 55
        assert shares.mean(0) == pytest.approx(expected, abs=0.003)
        # The variance of a Dirichlet share: a (A − a) / (A² (A + 1)).
        assert shares.var(0) == pytest.approx(expected * (1 - expected) / 56, rel=0.15)

    def test_every_frame_gets_one_gaze_and_none_more_than_there_are(self) -> None:
        rng = np.random.default_rng(0)
        tiny = DrawnBudget(low=1e-4, high=1e-4, alpha=0.1)
        assert min(min(tiny.limits(rng, frames=16, num_patches=20).counts) for _ in range(50)) == 1
        lavish = DrawnBudget(low=1.0, high=1.0, alpha=0.1)
        assert max(max(lavish.limits(rng, frames=16, num_patches=20).counts) for _ in range(50)) == 20

    def test_draws_depend_on_seed_key_and_purpose_alone(self) -> None:
        draws = {
            clip_rng(seed, key, purpose).random()
            for seed in range(3)
            for key in ("a/b/c.mp4", "a/b/d.mp4", "")
            for purpose in (0, 1)
        }
        assert len(draws) == 18
        assert clip_rng(5, "a", 1).random() == clip_rng(5, "a", 1).random()

    def test_a_threshold_limits_all_frames_alike(self) -> None:
        limits = ThresholdBudget(threshold=0.02).limits(np.random.default_rng(0), frames=3, num_patches=20)
        assert limits == Limits(counts=(15, 15, 15), threshold=0.02)

    @pytest.mark.parametrize(
        "wrong",
        [
            lambda: DrawnBudget(low=0.0),
            lambda: DrawnBudget(low=0.3, high=0.2),
            lambda: DrawnBudget(high=1.5),
            lambda: DrawnBudget(rate=0),
            lambda: DrawnBudget(alpha=float("nan")),
            lambda: ThresholdBudget(threshold=-0.1),
            lambda: ThresholdBudget(threshold=float("nan")),
            lambda: ThresholdBudget(threshold=0.1, max_ratio=0),
        ],
    )
    def test_illegal_numbers_are_refused(self, wrong: object) -> None:
        with pytest.raises(BudgetError, match="got"):
            wrong()  # type: ignore[operator]


def random_sets(rng: np.random.Generator, grid: PatchGrid, *, count: int, size: int) -> np.ndarray:
    return np.stack([rng.permutation(grid.num_patches)[:size] for _ in range(count)]).reshape(count, size)


class TestScorers:
    """What a judge says of a set of gazes is the loss of the frame when the clip is rebuilt from all gazes so far."""

    @pytest.mark.parametrize("name", ["canvas", "refined"])
    def test_losses_are_those_of_the_reconstructor(self, name: str) -> None:
        scorer: CandidateScorer = CanvasScorer(GRID)
        reconstructor = load_reconstructor("canvas")
        if name == "refined":
            network = refiner()
            scorer, reconstructor = RefinedScorer(network, candidate_batch=3), load_reconstructor(network)
        rng, rgb = np.random.default_rng(0), moving_clip(4)
        clip, gazes = scorer.open(rgb), []
        for t, size in enumerate((5, 0, 20, 3)):
            candidates = random_sets(rng, GRID, count=4, size=size)
            found = clip.tried(candidates)
            pictures = []
            for index, loss in zip(candidates, found.losses, strict=True):
                gaze = Gaze.concatenate([*gazes, Gaze(index=index, count=np.array([size]), layout=LAYOUT)])
                rebuilt = rebuild(Frames.from_rgb(rgb[: t + 1]), gaze=gaze, reconstructor=reconstructor)
                assert loss == pytest.approx(rebuilt.loss[t], abs=1e-6)
                pictures.append(rebuilt.rgb[t])
            assert found.picture == pytest.approx(pictures[found.losses.argmin()], abs=1)
            gazes.append(Gaze(index=candidates[0], count=np.array([size]), layout=LAYOUT))
            clip.commit(candidates[0])

    def test_losses_are_those_of_the_masked_autoencoder(self) -> None:
        model, rng, rgb = small_video_mae(), np.random.default_rng(0), mae_clip(3)
        layout = FrameLayout.tiled(CONFIG.grid, height_px=32, width_px=32)
        pixels = model.space.from_unit(torch.from_numpy(rgb).permute(0, 3, 1, 2)[None] / 255)
        clip, gazes = VideoMAEScorer(model, candidate_batch=2).open(rgb), []
        for t, size in enumerate((4, 0, 20)):
            candidates = random_sets(rng, CONFIG.grid, count=3, size=size)
            found = clip.tried(candidates)
            pictures = []
            for index, loss in zip(candidates, found.losses, strict=True):
                gaze = Gaze.concatenate([*gazes, Gaze(index=index, count=np.array([size]), layout=layout)])
                with torch.no_grad():
                    expected = model(pixels[:, : t + 1], gaze, [t])
                assert loss == pytest.approx(expected.loss_mean.item(), rel=1e-4)
                colours = model.space.to_unit(expected.reconstruction[0, 0]).movedim(0, -1).clamp(0, 1) * 255
                pictures.append(colours.numpy())
            assert found.picture == pytest.approx(pictures[found.losses.argmin()], abs=0.51)
            gazes.append(Gaze(index=candidates[0], count=np.array([size]), layout=layout))
            clip.commit(candidates[0])

    def test_every_reconstructor_judges_and_a_foreign_one_is_refused(self, tmp_path: Path) -> None:
        small_video_mae().save_pretrained(tmp_path / "mae")
        refiner().save_pretrained(tmp_path / "refiner")
        for source, kind in (("canvas", CanvasScorer), ("mae", VideoMAEScorer), ("refiner", RefinedScorer)):
            reconstructor = load_reconstructor(source if source == "canvas" else tmp_path / source)
            scorer = make_scorer(reconstructor)
            assert isinstance(scorer, kind)
            assert scorer.loss_unit == reconstructor.loss_unit

        class Foreign:
            name, loss_unit = "foreign", "a unit"

            def open(self, layout: FrameLayout) -> object:
                raise AssertionError("who cannot judge is never opened")

        with pytest.raises(CheckpointError, match="'foreign' cannot judge"):
            make_scorer(Foreign())  # type: ignore[arg-type]


def gazes_each(gaze: Gaze) -> list[list[int]]:
    return [one.index.tolist() for one in gaze]


class TestExhaustive:
    def test_on_the_canvas_it_is_the_greedy_search(self) -> None:
        for seed, threshold in ((0, 0.02), (1, 0.1), (2, 0.0)):
            rgb = moving_clip(seed=seed)
            limits = Limits(counts=(15,) * 4, threshold=threshold)
            found = search_clip(rgb, scorer=CanvasScorer(GRID), method=Exhaustive(), limits=limits)
            expected = Replenish(GRID).open(LAYOUT, Budget(threshold=threshold, ratio=0.75)).step(Frames.from_rgb(rgb))
            assert np.array_equal(found.gaze.index, expected.index)
            assert np.array_equal(found.gaze.count, expected.count)
            assert np.array_equal(found.gaze.predicted_loss, expected.predicted_loss)

    def test_under_an_autoencoder_it_is_the_definition(self) -> None:
        """Everything tried by rebuilding the whole clip so far."""
        model, rgb, counts = small_video_mae(), mae_clip(2), (3, 2)
        layout = FrameLayout.tiled(CONFIG.grid, height_px=32, width_px=32)
        pixels = model.space.from_unit(torch.from_numpy(rgb).permute(0, 3, 1, 2)[None] / 255)
        frames: list[list[int]] = []
        losses = []
        for t, count in enumerate(counts):
            taken: list[int] = []
            for _ in range(count):
                tried = {}
                for patch in sorted(set(range(CONFIG.grid.num_patches)) - set(taken)):
                    sets = [*frames, [*taken, patch]]
                    index = np.concatenate([np.array(one) for one in sets])
                    gaze = Gaze(index=index, count=np.array([len(one) for one in sets]), layout=layout)
                    with torch.no_grad():
                        tried[patch] = model(pixels[:, : t + 1], gaze, [t]).loss_mean.item()
                taken.append(min(tried, key=lambda patch: tried[patch]))
                losses.append(tried[taken[-1]])
            frames.append(taken)
        found = search_clip(rgb, scorer=VideoMAEScorer(model), method=Exhaustive(), limits=Limits(counts=counts))
        assert gazes_each(found.gaze) == frames
        assert found.gaze.predicted_loss == pytest.approx(losses, rel=1e-4)
        assert found.evaluations == 20 + 19 + 18 + 20 + 19

    def test_counts_are_kept_and_a_threshold_ends_frames(self) -> None:
        scorer, rgb = VideoMAEScorer(small_video_mae()), mae_clip(3)
        limits = Limits(counts=(6, 1, 25))  # more than there are patches
        whole = search_clip(rgb, scorer=scorer, method=Exhaustive(), limits=limits).gaze
        assert whole.count.tolist() == [6, 1, 20]
        assert whole.predicted_loss is not None
        first = whole.predicted_loss[:6]
        reached = int((first <= np.sort(first)[2]).argmax())
        some = search_clip(
            rgb[:1], scorer=scorer, method=Exhaustive(), limits=Limits(counts=(20,), threshold=float(first[reached]))
        ).gaze
        falls = np.flatnonzero(np.diff(first) >= 0)
        assert some.count[0] == min(reached + 1, *(falls + 1), 20)
        # A frame that is good enough as it is gets one all the same.
        lenient = search_clip(rgb, scorer=scorer, method=Exhaustive(), limits=Limits(counts=(9,) * 3, threshold=1e9))
        assert lenient.gaze.count.tolist() == [1, 1, 1]

    @pytest.mark.parametrize(
        ("threshold", "count"), [(None, 6), (0.0, 3), (0.25, 3), (0.3, 2), (0.31, 2), (0.5, 1), (2.0, 1)]
    )
    def test_a_frame_ends_where_it_should(self, threshold: float | None, count: int) -> None:
        """Under a judge for whom numbers of gazes are all that matters, and the fourth one harms."""

        class Clip:
            def tried(self, candidates: np.ndarray) -> Tried:
                loss = [1.0, 0.5, 0.3, 0.26, 0.27, 0.2, 0.1][candidates.shape[1]]
                return Tried(losses=np.full(len(candidates), loss), picture=np.zeros((64, 64, 3), np.uint8))

            def commit(self, index: np.ndarray) -> None:
                pass

        class Judge:
            grid, loss_unit = GRID, "gazes that are missing"

            def open(self, rgb: np.ndarray) -> Clip:
                return Clip()

        limits = Limits(counts=(6,), threshold=threshold)
        for method in (Exhaustive(), Lazy()):
            found = search_clip(moving_clip(1), scorer=Judge(), method=method, limits=limits)
            assert found.gaze.num_gazes == count

    def test_wrong_clips_limits_and_losses_are_refused(self) -> None:
        scorer, method = CanvasScorer(GRID), Exhaustive()
        with pytest.raises(ValueError, match=r"\(T, 64, 64, 3\) uint8, got \(4, 32, 32, 3\)"):
            search_clip(moving_clip(side_px=32), scorer=scorer, method=method, limits=Limits(counts=(1,) * 4))
        with pytest.raises(ValueError, match="one count for each of 4 frames, got 3"):
            search_clip(moving_clip(), scorer=scorer, method=method, limits=Limits(counts=(1,) * 3))
        with pytest.raises(ValueError, match="at least 1 gaze"):
            Limits(counts=(1, 0))
        model = small_video_mae()
        with torch.no_grad():
            model.decoder.mask_token.fill_(torch.nan)
        with pytest.raises(AutoGazeError, match="a loss of nan"):
            search_clip(mae_clip(1), scorer=VideoMAEScorer(model), method=method, limits=Limits(counts=(1,)))


def final_loss(found: Searched) -> float:
    """Mean over frames, after the last gaze of each."""
    assert found.gaze.predicted_loss is not None
    return float(found.gaze.predicted_loss[np.cumsum(found.gaze.count) - 1].mean())


class FinestOnly(CanvasScorer):
    """A judge for whom only patches of the finest scale count."""

    def open(self, rgb: np.ndarray) -> "FinestClip":  # type: ignore[override]
        return FinestClip(super().open(rgb), coarse=self.grid.num_patches - self.grid.patches_per_scale[-1])


class FinestClip:
    def __init__(self, clip: CanvasClip, *, coarse: int) -> None:
        self.clip, self.coarse = clip, coarse

    def tried(self, candidates: np.ndarray) -> Tried:
        fine = [row[row >= self.coarse] for row in candidates]
        losses = np.array([self.clip.losses(row[None])[0] for row in fine])
        return Tried(losses=losses, picture=self.clip.picture(fine[losses.argmin()]))

    def commit(self, index: np.ndarray) -> None:
        self.clip.commit(index[index >= self.coarse])


QUARTER = PatchGrid(scales_px=(8, 16, 28, 56), patch_px=4)
"""265 patches, as in the published grid, on frames that are quick to rebuild."""


class TestPromises:
    """Guesses at gains, against what pasting each patch alone gives."""

    def test_they_are_what_pasting_takes_off_picture_and_canvas(self) -> None:
        rng, rgb = np.random.default_rng(0), moving_clip(3)
        promises, clip = Promises(rgb, GRID), CanvasScorer(GRID).open(rgb)
        for t, order in enumerate((rng.permutation(20)[:6], rng.permutation(20)[:3], rng.permutation(20)[:1])):
            picture = rng.integers(0, 256, (64, 64, 3), np.uint8)
            error = np.abs(picture / 255 - rgb[t] / 255)
            for upto in range(len(order) + 1):
                taken = order[:upto]
                promise_PF = promises.of(picture, taken=taken.tolist())
                left = np.setdiff1d(np.arange(20), taken)
                with_one = np.concatenate([np.broadcast_to(taken, (len(left), upto)), left[:, None]], axis=1)
                expected = clip.losses(taken[None])[0] - clip.losses(with_one)
                assert promise_PF[left, 1] == pytest.approx(expected, abs=1e-12)
                for patch in range(20):
                    # What a patch alone shows is what a canvas holds in its place once it is pasted.
                    box = clip.tiling.cells.box_of_patch_px[patch]
                    shown = clip.scales.images[clip.tiling.cells.scale_of_patch[patch]][0][box] / 255
                    gain = (error[box] - np.abs(shown - rgb[t][box] / 255)).sum() / error.size
                    assert promise_PF[patch, 0] == pytest.approx(gain, abs=1e-12)
            clip.commit(order)
            promises.commit(order)


class TestExpectations:
    SCALE_P = np.array([0] * 4 + [1] * 16)

    def learned(self, *, unit: float = 1.0, surprise_P: np.ndarray | float = 0.0, gazes: int = 12) -> Expectations:
        """Of gains that are promises weighted by scale, and more for some patches."""
        rng, found = np.random.default_rng(0), Expectations(self.SCALE_P, kinds=2)
        for _ in range(gazes):
            promise_PF = unit * rng.uniform(-1, 1, (20, 2))
            patches = rng.permutation(20)[:6]
            gain_P = self.true_gains(promise_PF) + unit * surprise_P
            found.learn(patches, gain_C=gain_P[patches], promise_PF=promise_PF)
        return found

    def true_gains(self, promise_PF: np.ndarray) -> np.ndarray:
        weight_KF = np.array([[1.2, 0.1], [-0.2, 0.6]])
        return (weight_KF[self.SCALE_P] * promise_PF).sum(1)

    def test_nothing_known_promises_count_alike(self) -> None:
        promise_PF = np.random.default_rng(1).normal(size=(20, 2))
        assert Expectations(self.SCALE_P, kinds=2).gains(promise_PF) == pytest.approx(promise_PF.mean(1))

    def test_weights_of_each_scale_are_learned(self) -> None:
        promise_PF = np.random.default_rng(1).uniform(-1, 1, (20, 2))
        error_P = self.learned().gains(promise_PF) - self.true_gains(promise_PF)
        assert np.abs(error_P).max() < 0.2 * np.abs(self.true_gains(promise_PF)).max()

    def test_what_a_patch_gains_beyond_its_promise_is_expected_again(self) -> None:
        surprise_P = np.where(np.arange(20) % 5 == 0, 0.5, 0.0)
        promise_PF = np.random.default_rng(1).uniform(0.8, 1, (20, 2))
        found = self.learned(surprise_P=surprise_P, gazes=40)
        more_P = found.gains(promise_PF) - self.learned(gazes=40).gains(promise_PF)
        assert more_P[surprise_P > 0].min() > 0.2 > more_P[surprise_P == 0].max()
        # Less so, the less it promises by now.
        small = found.gains(promise_PF / 100) - self.learned(gazes=40).gains(promise_PF / 100)
        assert np.abs(small).max() < 0.05

    def test_the_unit_of_losses_plays_no_part(self) -> None:
        promise_PF = np.random.default_rng(1).uniform(-1, 1, (20, 2))
        expected = self.learned(surprise_P=0.3).gains(promise_PF)
        assert self.learned(surprise_P=0.3, unit=1e-4).gains(1e-4 * promise_PF) == pytest.approx(1e-4 * expected)


class Asked(VideoMAEScorer):
    """Writes down what it is asked."""

    def open(self, rgb: np.ndarray) -> "AskedClip":  # type: ignore[override]
        self.sets: list[tuple[int, ...]] = []
        return AskedClip(super().open(rgb), self.sets)


class AskedClip:
    def __init__(self, clip: ClipScorer, sets: list[tuple[int, ...]]) -> None:
        self.clip, self.sets, self.frame = clip, sets, 0

    def tried(self, candidates: np.ndarray) -> Tried:
        self.sets += [(self.frame, *sorted(row.tolist())) for row in candidates]
        return self.clip.tried(candidates)

    def commit(self, index: np.ndarray) -> None:
        self.clip.commit(index)
        self.frame += 1


class TestLazy:
    def test_all_patches_tried_is_the_definition(self) -> None:
        scorer, rgb, limits = VideoMAEScorer(small_video_mae(1)), mae_clip(3, seed=1), Limits(counts=(5, 2, 4))
        exact = search_clip(rgb, scorer=scorer, method=Exhaustive(), limits=limits)
        # Twice as many as there are, because only half of them are tried whatever is expected of them.
        lazy = search_clip(rgb, scorer=scorer, method=Lazy(candidates=40), limits=limits)
        assert gazes_each(lazy.gaze) == gazes_each(exact.gaze)
        assert lazy.gaze.predicted_loss == pytest.approx(exact.gaze.predicted_loss, rel=1e-5)

    @pytest.mark.parametrize("scorer", [CanvasScorer(QUARTER), FinestOnly(QUARTER)])
    @pytest.mark.parametrize("seed", [0, 1])
    def test_a_twentieth_of_the_tries_is_within_two_percent(self, scorer: CandidateScorer, seed: int) -> None:
        rgb, limits = moving_clip(4, side_px=56, seed=seed), Limits(counts=(16, 8, 8, 8))
        exact = search_clip(rgb, scorer=scorer, method=Exhaustive(), limits=limits)
        lazy = search_clip(rgb, scorer=scorer, method=Lazy(), limits=limits)
        assert lazy.evaluations < exact.evaluations / 20
        clip, losses = scorer.open(rgb), []
        for t, count in enumerate(limits.counts):
            by_chance = np.random.default_rng(t).permutation(QUARTER.num_patches)[:count]
            losses.append(clip.tried(by_chance[None]).losses[0])
            clip.commit(by_chance)
        # Of what the definition takes off the loss that chance leaves, next to nothing is missing.
        assert np.mean(losses) - final_loss(lazy) > 0.98 * (np.mean(losses) - final_loss(exact))
        assert final_loss(lazy) < 1.02 * final_loss(exact)

    @pytest.mark.parametrize("candidates", [1, 2, 5])
    def test_it_tries_no_more_than_it_may_and_never_takes_a_patch_twice(self, candidates: int) -> None:
        scorer, rgb = Asked(small_video_mae(2)), mae_clip(3, seed=2)
        found = search_clip(rgb, scorer=scorer, method=Lazy(candidates=candidates), limits=Limits(counts=(20, 3, 7)))
        assert len(scorer.sets) == found.evaluations == len(set(scorer.sets))
        assert found.gaze.count.tolist() == [20, 3, 7]
        assert all(len(set(frame)) == len(frame) for frame in gazes_each(found.gaze))
        # Every coarse patch and 12 fine ones for the first gaze, and each frame once as it is at its beginning.
        assert found.evaluations <= 4 + 12 + 29 * candidates + 3
        clip = scorer.open(rgb)
        for gaze in found.gaze:
            assert gaze.predicted_loss is not None
            for upto in range(1, len(gaze.index) + 1):
                loss = clip.tried(gaze.index[None, :upto]).losses[0]
                assert loss == pytest.approx(gaze.predicted_loss[upto - 1], rel=1e-5)
            clip.commit(gaze.index)

    def test_too_few_candidates_are_refused(self) -> None:
        with pytest.raises(AutoGazeError, match="candidates must be at least 1, got 0"):
            Lazy(candidates=0)
