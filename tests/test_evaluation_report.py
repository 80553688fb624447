"""The report: one valid file that needs nothing else, says what the rows say, and lets no name break it."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from autogaze.evaluation import report as report_module
from autogaze.evaluation.grids import TITLE_KEY
from autogaze.evaluation.report import write_report
from autogaze.evaluation.report_images import grids
from evaluation_samples import POINTS, RATIOS, THRESHOLD, Rows, make_rows, with_error

VOID = {"meta", "img", "input", "br", "hr", "link"}
METADATA = {
    "command": "autogaze evaluate videos --selectors replenish random",
    "selectors": [{"name": "replenish", "weights_sha256": None}, {"name": "random", "weights_sha256": "abcdef" * 11}],
    "reconstructors": [{"name": "canvas", "loss_unit": "mean absolute error"}],
    "settings": {"seed": 7, "mode": "resize", "stride": 2},
    "versions": {"autogaze": "1.2.3", "torch": "9.9"},
    "machine": {"system": "Linux", "cores": 2, "accelerator": None},
    "videos": [{"video": "v1.mp4", "notes": ["ends early"]}],
    "skipped": [
        {"selector": "random", "setting": setting, "reconstructor": None, "reason": "cannot stop"}
        for setting in ("task_0.025", "ratio_0.75_task_0.025")
    ],
    "failures": [{"video": "broken.mp4", "reason": "nothing in it can be decoded"}],
}


@dataclass
class Page(HTMLParser):
    """What a browser would read, with every tag closed in its turn."""

    open_tags: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open_tags and self.open_tags[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]


def page_of(folder: Path, rows: Rows, metadata: dict[str, Any] | None = None) -> Page:
    folder.mkdir(exist_ok=True)
    path = folder / "report.html"
    write_report(path, folder=folder, metadata=metadata or {}, summary=rows.summary, clips=rows.clips)
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert page.open_tags == []
    return page


def put_grid(folder: Path, name: str, *, side_px: int = 64, title: str | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(name)).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
    texts = PngInfo()
    if title is not None:
        texts.add_itxt(TITLE_KEY, title)
    Image.fromarray(noise).save(folder / f"{name}.png", pnginfo=texts)


@pytest.mark.parametrize(
    "rows",
    [
        make_rows({"replenish": 1.0, "random": 3.0}, reconstructors=("canvas", "refined"), videos=6),
        make_rows({"only": 1.0}, points=RATIOS[:1], videos=1),
        make_rows({"a": 1.0, "b": 2.0}, seconds=None),
        make_rows({"a": 1.0}, seconds=math.nan),
        with_error(make_rows({"a": 1.0, "b": 1.0}), 0.0),
        with_error(make_rows({"a": 1.0, "b": 1.0}), math.nan),
        Rows(frames=[], clips=[], summary=[]),
    ],
    ids=["usual", "one of each", "untimed", "nan times", "exact", "nan", "nothing"],
)
def test_whatever_the_rows_are_the_page_is_whole_and_needs_nothing_else(tmp_path, rows):
    for name in ("tradeoff_curves", "per_frame_curves", "gaze_heatmap", "time", "another_plot"):
        put_grid(tmp_path / "plots", name)
    put_grid(tmp_path / "visualizations", "v0_a_ratio_0.10")
    page = page_of(tmp_path, rows, METADATA)
    assert page.tags[0] == "html"
    assert all(page.tags.count(tag) == 1 for tag in ("html", "head", "title", "body", "main", "h1"))
    assert not {"link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert all(value.startswith("data:image/") for value in page.values("src"))
    ids = page.values("id")
    assert len(set(ids)) == len(ids)
    targets = page.values("href")
    assert targets == [f"#{name}" for name in ids]
    assert "another plot" in page.values("alt")
    assert {"tradeoff", "frames", "time", "more", "grids"} <= set(ids)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "://" not in html
    assert "@import" not in html
    assert "url(" not in html
    assert "nan" not in page.text.partition("To repeat it")[0].lower().split()
    assert "default-src 'none'" in html


def test_the_findings_are_those_of_the_rows(tmp_path):
    page = page_of(tmp_path, make_rows({"replenish": 1.0, "random": 3.0, "flow": 2.0}, videos=6), METADATA)
    assert re.search(r"random keeps 3\.0× \(\d\.\d to \d\.\d×\) the patches of replenish", page.text)
    assert "95 % of what comes out" in page.text
    few = page_of(tmp_path, make_rows({"replenish": 1.0, "random": 3.0}, videos=2), METADATA)
    assert "random keeps 3.0× the patches of replenish" in few.text
    assert "95 % of what comes out" not in few.text
    alone = page_of(tmp_path, make_rows({"replenish": 1.0}), METADATA)
    assert "nothing to compare" in alone.text


def test_everything_that_was_measured_is_told(tmp_path):
    page = page_of(tmp_path, make_rows({"replenish": 1.0, "random": 3.0}, videos=8), METADATA)
    for words in (
        "8: v0.mp4, v1.mp4, v2.mp4, v3.mp4, v4.mp4, v5.mp4 and 2 more",
        "265 over all scales, 196 at the finest",
        "canvas: mean absolute error",
        "random (weights abcdefabcdef)",
        "autogaze 1.2.3, torch 9.9",
        "system Linux, cores 2 versions",  # and not that there is no accelerator
        "every 2. frame",
        "broken.mp4: nothing in it can be decoded",
        "random: task_0.025, ratio_0.75_task_0.025: cannot stop",
        "v1.mp4: ends early",
        "autogaze evaluate videos --selectors replenish random",
    ):
        assert words in page.text


def test_what_is_recorded_can_be_read_back(tmp_path):
    page = page_of(tmp_path, make_rows({"a": 1.0}), METADATA)
    recorded = next(text for text in page.texts if text.lstrip().startswith("{"))
    assert json.loads(recorded) == METADATA


def test_nothing_missing_is_told_too(tmp_path):
    assert "no video failed" in page_of(tmp_path, make_rows({"a": 1.0}), {}).text


def skipped(selector: str, settings: list[str], reason: str = "cannot") -> list[dict[str, str | None]]:
    return [
        {"selector": selector, "setting": one, "reconstructor": None, "reason": f"{reason} {one}"} for one in settings
    ]


def test_selectors_without_budgets_over_a_clip_are_named(tmp_path):
    def told(clipless: list[str]) -> str:
        whole, part = make_rows({"random": 2.0}), make_rows({"gaze": 1.0, "look": 1.5}, points=(*RATIOS, THRESHOLD))
        rows = Rows(frames=[], clips=whole.clips + part.clips, summary=whole.summary + part.summary)
        lines = [one for name in clipless for one in skipped(name, ["clip_0.02", "clip_0.05"])]
        return page_of(tmp_path, rows, {"skipped": lines}).text.partition("What was measured")[2]

    assert "gaze cannot share a budget over a clip; its points are thresholds and shares" in told(["gaze"])
    assert "gaze, look cannot share a budget over a clip; their points are" in told(["look", "gaze", "never measured"])
    assert "cannot share a budget" not in told(["random"])  # it has shared others
    assert "cannot share a budget" not in told([])


@pytest.mark.parametrize(("selector", "is_open"), [("a", True), ("never measured", False)])
def test_much_that_was_skipped_is_open_if_it_is_of_a_measured_selector(tmp_path, selector, is_open):
    lines = skipped(selector, [f"ratio_0.{number}" for number in range(10, 30)])
    page_of(tmp_path, make_rows({"a": 1.0}), {"skipped": lines})
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert ("<details open><summary>Skipped (20)" in html) == is_open


@pytest.mark.parametrize(
    "metadata",
    [
        {"videos": 3, "selectors": "x", "failures": None, "skipped": [1], "settings": []},
        {"machine": "here", "seed": {1}},
    ],
)
def test_metadata_of_another_form_is_shown_as_it_is(tmp_path, metadata):
    assert page_of(tmp_path, make_rows({"a": 1.0}), metadata)


ODD = "<script>alert(1)</script>&\"'"


def test_names_are_shown_and_not_run(tmp_path):
    rows = make_rows({ODD: 1.0, "</table>": 2.0}, reconstructors=(f"<b>{ODD}",), points=(*RATIOS, THRESHOLD))
    metadata = {**METADATA, "command": ODD, "failures": [{"video": ODD, "reason": ODD}], ODD: ODD}
    put_grid(tmp_path / "visualizations", "odd", title=ODD)
    page = page_of(tmp_path, rows, metadata)
    assert page.tags.count("script") == 1
    assert page.tags.count("b") == (tmp_path / "report.html").read_text().count("<b>")
    assert page.text.count("<script>alert(1)</script>&\"'") > 10
    assert ODD in page.values("alt")


def test_names_that_are_no_text_keep_their_bytes(tmp_path):
    rows = make_rows({"\udc80odd": 1.0, "other": 2.0}, points=RATIOS)
    assert "\\udc80odd" in page_of(tmp_path, rows, {"failures": [{"video": "\udcff.mp4", "reason": "?"}]}).text


def test_equal_input_gives_equal_bytes(tmp_path):
    rows = make_rows({"a": 1.0, "b": 2.0}, videos=6)
    put_grid(tmp_path / "visualizations", "v0_a_ratio_0.10")
    page_of(tmp_path, rows, METADATA)
    first = (tmp_path / "report.html").read_bytes()
    page_of(tmp_path, rows, METADATA)
    assert (tmp_path / "report.html").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["report.html"]


def test_plots_are_held_as_they_are(tmp_path):
    put_grid(tmp_path / "plots", "tradeoff_curves")
    (tmp_path / "plots" / "gaze_heatmap.png").write_bytes(b"no picture")
    page = page_of(tmp_path, make_rows({"a": 1.0}))
    (uri,) = page.values("src")
    kind, _, content = uri.partition(";base64,")
    assert kind == "data:image/png"
    assert base64.b64decode(content) == (tmp_path / "plots" / "tradeoff_curves.png").read_bytes()
    assert "tradeoff" in page.values("id")
    assert "frames" not in page.values("id")


# Tables


def test_numbers_are_sorted_as_numbers(tmp_path):
    rows = make_rows({"a": 1.0, "b": 2.0})
    page = page_of(tmp_path, rows)
    orders = [float(value) for value in page.values("data-order")]
    assert {row.psnr for row in rows.summary} <= set(orders)
    assert {row.actual_gaze_ratio for row in rows.summary} <= set(orders)


@pytest.mark.parametrize("seconds", [None, math.nan])
def test_times_that_nobody_took_are_dashes(tmp_path, seconds):
    timed, untimed = (page_of(tmp_path, make_rows({"a": 1.0}, seconds=s)) for s in (0.125, seconds))
    assert timed.texts.count("0.125") == 3 * len(POINTS)
    assert untimed.texts.count("–") >= 3 * len(POINTS)
    assert "∞" not in untimed.texts


def test_every_setting_of_every_selector_is_in_the_tables(tmp_path):
    rows = make_rows({"a": 1.0, "b": 2.0}, reconstructors=("canvas", "refined"))
    page = page_of(tmp_path, rows)
    for point in POINTS:
        # Once in the matrix, once for each selector in the table of all means; twice, as there are two reconstructors.
        assert page.texts.count(point.name) == 2 * (1 + 2)


def test_the_worst_clips_are_those_of_the_threshold(tmp_path):
    rows = make_rows({"good": 1.0, "bad": 4.0}, videos=12)
    page = page_of(tmp_path, rows)
    worst = page.text[page.text.index("The clips with the largest loss") : page.text.index("What is missing", 900)]
    assert worst.index("good, task_0.025") < worst.index("bad, task_0.025")
    listed = list(re.findall(r"\bv\d+\b", worst.partition("bad, task_0.025")[0]))
    assert listed == [f"v{number}" for number in range(11, 3, -1)]


def test_without_thresholds_the_worst_clips_are_those_near_a_tenth(tmp_path):
    page = page_of(tmp_path, make_rows({"good": 1.0, "bad": 4.0}, points=RATIOS))
    assert "good, ratio_0.10, rebuilt by canvas" in page.text
    assert "bad, ratio_0.10, rebuilt by canvas" not in page.text


# Grids


def test_grids_are_shown_by_clip_thresholds_first(tmp_path):
    folder = tmp_path / "visualizations"
    for clip in ("v1", "v0"):
        for setting in ("ratio_0.75", "clip_0.05", "task_0.025"):
            put_grid(folder, f"{clip}_a_{setting}", title=f"{clip} · a · {setting}")
    put_grid(folder, "of no clip")
    (folder / "broken.png").write_bytes(b"no picture")
    found = grids(folder, clips=make_rows({"a": 1.0}).clips, most_bytes=10**8)
    assert list(found.by_clip) == ["v0", "v1", ""]
    assert [one.alt for one in found.by_clip["v0"]] == [
        f"v0 · a · {s}" for s in ("task_0.025", "clip_0.05", "ratio_0.75")
    ]
    assert [one.alt for one in found.by_clip[""]] == ["of no clip"]
    assert found.left_out == 1
    with Image.open(io.BytesIO(base64.b64decode(found.by_clip[""][0].uri.partition(",")[2]))) as image:
        assert image.size == (64, 64) == (found.by_clip[""][0].width_px, found.by_clip[""][0].height_px)


def test_all_grids_but_three_are_folded_away(tmp_path):
    for clip in ("v0", "v1"):
        for setting in ("task_0.025", "clip_0.02", "clip_0.05", "ratio_0.10", "ratio_0.75"):
            put_grid(tmp_path / "visualizations", f"{clip}_a_{setting}")
    page = page_of(tmp_path, make_rows({"a": 1.0}))
    assert len(page.values("src")) == 10
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    part = html[html.index('id="grids"') : html.index('id="worst"')]
    assert part.partition("<details")[0].count("<img") == 3
    assert re.findall(r"<details[^>]*><summary>[^<]*", part) == [
        "<details><summary>v0 (2 more)",
        "<details><summary>v1 (5)",
    ]


def test_grids_beyond_the_limit_are_left_out_and_counted(tmp_path, monkeypatch):
    folder = tmp_path / "visualizations"
    for clip in ("v0", "v1", "v2"):
        for setting in ("ratio_0.75", "task_0.025"):
            put_grid(folder, f"{clip}_a_{setting}_canvas", side_px=200)
    rows = make_rows({"a": 1.0})
    whole = grids(folder, clips=rows.clips, most_bytes=10**8)
    size = max(len(one.uri) for of in whole.by_clip.values() for one in of)
    some = grids(folder, clips=rows.clips, most_bytes=int(3.5 * size))
    assert some.left_out == 3
    # One of each clip, all under the same setting.
    assert [one.alt for of in some.by_clip.values() for one in of] == [f"v{i}_a_task_0.025_canvas" for i in range(3)]
    monkeypatch.setattr(report_module, "MOST_BYTES", int(3.5 * size))
    page = page_of(tmp_path, rows)
    assert "3 more grids are in the folder visualizations" in page.text
    assert len(page.values("src")) == 3


def test_no_folder_no_grids(tmp_path):
    found = grids(tmp_path / "none", clips=[], most_bytes=10**8)
    assert (dict(found.by_clip), found.left_out) == ({}, 0)
    assert "grids" not in page_of(tmp_path, make_rows({"a": 1.0})).values("id")
