"""The stop head in closed form: its equations, what it reads, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from autogaze import cli
from autogaze.datasets.labels import LabelRule
from autogaze.datasets.recipes import ClipRecipe
from autogaze.errors import AutoGazeError, TrainingError
from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.results import OutputError
from autogaze.training.networks import gaze_model
from autogaze.training.stop_head import RIDGES, StopHeadSettings, Sums, fit, fit_stop_head, kept_aside
from small_models import clips, small_model
from training_samples import all_tensors


def equations(weight_KC: torch.Tensor, rows: int, seed: int, noise: float = 0.0) -> Sums:
    """What heads of these weights would have seen, with some noise on top."""
    rng = torch.Generator().manual_seed(seed)
    sums = Sums.zero(*weight_KC.shape)
    for head, weight in enumerate(weight_KC):
        x = torch.randn(rows, len(weight), generator=rng)
        loss = (x @ weight).abs() + 0.01
        x = (
            torch.linalg.lstsq(weight[None], loss[None]).solution.T
            + x
            - x @ torch.outer(weight, weight) / (weight @ weight)
        )  # features whose product with the weight is the loss
        sums.add(head, x, loss * (1 + noise * torch.randn(rows, generator=rng)), floor=0.005)
    return sums


def test_the_features_give_the_predicted_losses() -> None:
    model = small_model()
    index = torch.randint(20, (2, 25), generator=torch.Generator().manual_seed(0))
    kept = torch.arange(25) % 6 < 5
    kept = kept.expand(2, -1)
    counts, video = [5] * 5, clips(2)
    with torch.no_grad():
        visual = model.connector(model.vision_model(video)[0])
        features, head = model.stop_features(visual, index, kept, counts)
        predicted = (features * model.gaze_decoder.task_loss_prediction_head.weight[head]).sum(-1)
        expected = model(video, index, kept, counts).predicted_loss_BN
    torch.testing.assert_close(predicted[kept], expected[kept], atol=1e-5, rtol=1e-5)


def test_a_linear_truth_is_found() -> None:
    truth = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    found = fit(equations(truth, 400, 2), equations(truth, 100, 3), torch.zeros(3, 6))
    torch.testing.assert_close(found.weight_KC, truth, atol=1e-2, rtol=1e-2)
    assert found.error_after < 0.01 < 0.9 < found.error_before
    assert found.ridge == min(RIDGES)


def test_the_pull_is_in_the_unit_of_the_features_and_of_the_losses() -> None:
    start = torch.randn(2, 6, generator=torch.Generator().manual_seed(4))
    rng = torch.Generator().manual_seed(5)
    x, loss = torch.randn(80, 6, generator=rng), torch.rand(80, generator=rng) + 0.1
    plain, scaled = Sums.zero(2, 6), Sums.zero(2, 6)
    for head in range(2):
        plain.add(head, x, loss, floor=0.01)
        scaled.add(head, 50 * x, 0.02 * loss, floor=0.0002)
    expected = plain.solve(start.double(), ridge=0.3)
    torch.testing.assert_close(scaled.solve(start.double() * 0.02 / 50, ridge=0.3), expected * 0.02 / 50)
    for_ever = plain.solve(start.double(), ridge=1e9)
    torch.testing.assert_close(for_ever, start.double(), rtol=1e-6, atol=1e-6)


def test_errors_are_those_of_the_residuals() -> None:
    rng = torch.Generator().manual_seed(0)
    x, loss, weight = torch.randn(50, 4, generator=rng), torch.rand(50, generator=rng), torch.randn(1, 4, generator=rng)
    sums = Sums.zero(1, 4)
    sums.add(0, x[:20], loss[:20], floor=0.01)
    rest = Sums.zero(1, 4)
    rest.add(0, x[20:], loss[20:], floor=0.01)
    expected = (((x @ weight[0]) - loss) / (loss + 0.01)).square().mean()
    torch.testing.assert_close((sums + rest).errors(weight.double())[0], expected.double(), rtol=1e-5, atol=1e-8)


def test_what_is_no_better_is_not_taken() -> None:
    truth = torch.randn(2, 16, generator=torch.Generator().manual_seed(1))
    noisy = fit(equations(truth, 12, 2, noise=2.0), equations(truth, 200, 3), truth)
    assert noisy.ridge == float("inf")
    assert torch.equal(noisy.weight_KC, truth)
    assert noisy.error_after == noisy.error_before


def test_a_head_that_saw_nothing_stays_as_it_is() -> None:
    start = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    seen, aside = Sums.zero(2, 4), Sums.zero(2, 4)
    for sums in (seen, aside):
        sums.add(0, torch.randn(30, 4), torch.rand(30), floor=0.01)
    found = fit(seen, aside, start)
    assert torch.equal(found.weight_KC[1], start[1])
    assert not torch.equal(found.weight_KC[0], start[0])
    with pytest.raises(TrainingError, match="at least 5 clips"):
        fit(Sums.zero(2, 4), aside, start)


def test_a_checkpoint_gets_a_better_head_and_nothing_else(tmp_path: Path) -> None:
    gaze_model(init=None, shape="tiny", seed=0).save_pretrained(tmp_path / "init")
    settings = StopHeadSettings(
        out=tmp_path / "out",
        init=str(tmp_path / "init"),
        procedural=1.0,
        clips=40,
        batch=4,
        block=64,
        workers=0,
        device="cpu",
    )
    shares: list[float] = []
    found = fit_stop_head(settings, on_progress=shares.append)
    assert found.error_after < 0.8 * found.error_before
    assert shares[-1] == 1.0 and shares == sorted(shares)
    before, after = all_tensors(tmp_path / "init"), all_tensors(tmp_path / "out" / "checkpoint")
    changed = [name for name, tensor in before.items() if not torch.equal(tensor, after[name])]
    assert [name.split("/")[1] for name in changed] == ["gazing_model.gaze_decoder.task_loss_prediction_head.weight"]
    video = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3)).astype(np.uint8)
    first, second = (
        AutoGaze.from_pretrained(tmp_path / name).gaze(video, ratio=0.3) for name in ("init", "out/checkpoint")
    )
    assert np.array_equal(first.index, second.index)
    with pytest.raises(TrainingError, match="is there already; --overwrite replaces it"):
        fit_stop_head(settings)


def test_whole_sources_are_kept_aside() -> None:
    rule = LabelRule(threshold=0.05)

    def recipe(number: int, name: str | None) -> ClipRecipe:
        path = None if name is None else Path(name)
        return ClipRecipe(number=number, path=path, kind="video", seed=0, rule=rule)

    names = ["dog_01.mp4", "cat_01.mp4", "a.mp4", "dog_02.mp4", "b_12_03.mp4", None, "c.mp4", "dog_x.mp4", "cat_2.mp4"]
    recipes = [recipe(10 + place, name) for place, name in enumerate(names)]
    # dog, cat, a, b_12, drawn, c, dog_x: the first and the sixth.
    assert kept_aside(recipes) == {10, 13, 16}
    few = [recipe(number, f"dog_{number}.mp4") for number in range(7)]
    assert kept_aside(few) == {0, 5}


def test_what_cannot_be_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file; results need a folder"):
        fit_stop_head(StopHeadSettings(procedural=1.0, out=tmp_path / "file"))
    with pytest.raises(AutoGazeError, match="device 'nope' cannot be used"):
        fit_stop_head(StopHeadSettings(procedural=1.0, out=tmp_path / "out", device="nope"))


def test_the_command_says_what_was_won(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gaze_model(init=None, shape="tiny", seed=0).save_pretrained(tmp_path / "init")
    places = ["--init", str(tmp_path / "init"), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as done:
        cli.main(["train", "stop_head", "--config", "tiny", *places, "--clips", "40", "--batch", "4"])
    assert done.value.code == 0
    printed = capsys.readouterr().out
    assert "error of a predicted loss on clips kept aside:" in printed
    assert (tmp_path / "out" / "checkpoint" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clips": 9}, "--clips must be at least 10, got 9"),
        ({"batch": 0}, "--batch must be above 0"),
        ({"loss_floor": 0.0}, "--loss-floor must be above 0"),
        ({"procedural": 0.0}, "nothing to train on"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        StopHeadSettings(**{"procedural": 1.0, **changes})
