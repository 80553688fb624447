"""Tables and journal give back what they were given, and say so when they cannot."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autogaze.evaluation.journal import JOURNAL, ClipRecord, Journal, VideoRecord
from autogaze.evaluation.rows import ClipRow, FrameRow, SummaryRow
from autogaze.evaluation.tables import TableError, read_rows, summarise, summary_text, write_rows
from autogaze.results import OutputError

finite = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
counts = st.lists(st.integers(0, 265), max_size=4).map(tuple)

frame_rows = st.builds(
    FrameRow,
    clip_name=words,
    clip_start=st.integers(0, 10**6),
    setting=words,
    frame_idx=st.integers(0, 15),
    reconstruction_loss=finite,
    non_padded_gazes=st.integers(0, 265),
    pixel_mae=finite,
    pixel_mse=finite,
    psnr=finite | st.just(math.inf),
    ssim=finite,
    selector=words,
    reconstructor=words,
    predicted_loss=st.none() | finite,
)
clip_rows = st.builds(
    ClipRow,
    clip_name=words,
    clip_start=st.integers(0, 10**6),
    setting=words,
    gazing_ratio_arg=st.none() | finite,
    task_loss_requirement_arg=st.none() | finite,
    non_padded_gazes=st.integers(0, 4240),
    actual_gaze_ratio=finite,
    reconstruction_loss=finite,
    pixel_mae=finite,
    pixel_mse=finite,
    psnr=finite,
    ssim=finite,
    gaze_seconds=st.none() | finite,
    reconstruction_seconds=st.none() | finite,
    non_padded_gazes_by_frame=counts,
    num_gazing_each_frame=counts,
    selector=words,
    reconstructor=words,
    budget_per=st.sampled_from(("frame", "clip")),
    video=words,
    frames=st.integers(1, 16),
    gaze_ratio_of_finest=finite,
    decode_seconds=st.none() | finite,
    peak_memory_mb=st.none() | finite,
)


def clip_row(**values: object) -> ClipRow:
    plain = {
        **dict.fromkeys(("clip_name", "setting", "selector", "reconstructor", "video"), "x"),
        **dict.fromkeys(("clip_start", "non_padded_gazes", "frames"), 1),
        **dict.fromkeys(("gazing_ratio_arg", "task_loss_requirement_arg"), None),
        **dict.fromkeys(("actual_gaze_ratio", "reconstruction_loss", "pixel_mae", "pixel_mse", "psnr", "ssim"), 0.5),
        **dict.fromkeys(("gaze_seconds", "reconstruction_seconds", "decode_seconds", "peak_memory_mb"), None),
        **dict.fromkeys(("non_padded_gazes_by_frame", "num_gazing_each_frame"), (1,)),
        "budget_per": "frame",
        "gaze_ratio_of_finest": 0.5,
    }
    return ClipRow(**{**plain, **values})  # type: ignore[arg-type]


def frame_row(**values: object) -> FrameRow:
    plain = {
        **dict.fromkeys(("clip_name", "setting", "selector", "reconstructor"), "x"),
        **dict.fromkeys(("clip_start", "frame_idx", "non_padded_gazes"), 1),
        **dict.fromkeys(("reconstruction_loss", "pixel_mae", "pixel_mse", "psnr", "ssim"), 0.5),
        "predicted_loss": None,
    }
    return FrameRow(**{**plain, **values})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


class TestCsv:
    @given(rows=st.lists(frame_rows, max_size=3))
    def test_frame_rows_come_back(self, folder: Path, rows: list[FrameRow]) -> None:
        write_rows(folder / "rows.csv", rows, kind=FrameRow)
        assert read_rows(folder / "rows.csv", FrameRow) == rows

    @given(rows=st.lists(clip_rows, max_size=3))
    def test_clip_rows_and_their_means_come_back(self, folder: Path, rows: list[ClipRow]) -> None:
        write_rows(folder / "rows.csv", rows, kind=ClipRow)
        assert read_rows(folder / "rows.csv", ClipRow) == rows

    def test_looks_as_people_expect(self, tmp_path: Path) -> None:
        write_rows(tmp_path / "f.csv", [frame_row(psnr=math.inf, ssim=0.1 + 0.2)], kind=FrameRow)
        heading, line = (tmp_path / "f.csv").read_text().splitlines()
        assert heading.startswith("clip_name,clip_start,setting,frame_idx,reconstruction_loss,non_padded_gazes,")
        assert line == "x,1,x,1,0.5,1,0.5,0.5,inf,0.30000000000000004,x,x,"
        assert b"\r" not in (tmp_path / "f.csv").read_bytes()
        write_rows(tmp_path / "c.csv", [clip_row(non_padded_gazes_by_frame=(12, 0, 3))], kind=ClipRow)
        heading, line = (tmp_path / "c.csv").read_text().splitlines()
        assert heading.startswith(
            "clip_name,clip_start,setting,gazing_ratio_arg,task_loss_requirement_arg,non_padded_gazes,actual_gaze_ratio,"
            "reconstruction_loss,pixel_mae,pixel_mse,psnr,ssim,gaze_seconds,reconstruction_seconds,"
        )
        assert ',"[12, 0, 3]",[1],' in line

    def test_of_other_columns_is_refused(self, tmp_path: Path) -> None:
        write_rows(tmp_path / "f.csv", [frame_row()], kind=FrameRow)
        with pytest.raises(TableError, match="has the columns"):
            read_rows(tmp_path / "f.csv", ClipRow)

    def test_with_a_damaged_line_is_refused(self, tmp_path: Path) -> None:
        write_rows(tmp_path / "f.csv", [frame_row(), frame_row()], kind=FrameRow)
        text = (tmp_path / "f.csv").read_text()
        for broken in (text[:-8], text.replace("0.5", "half")):
            (tmp_path / "f.csv").write_text(broken)
            with pytest.raises(TableError, match=r"line \d of .*f.csv cannot be read"):
                read_rows(tmp_path / "f.csv", FrameRow)


class TestSummary:
    def test_is_of_means_over_clips_of_one_kind(self) -> None:
        rows = [
            clip_row(setting="a", psnr=20.0, gaze_seconds=1.0, peak_memory_mb=5.0),
            clip_row(setting="b", psnr=7.0),
            clip_row(setting="a", psnr=30.0, gaze_seconds=2.0, peak_memory_mb=3.0),
            clip_row(setting="a", psnr=1.0, selector="other"),
        ]
        found = summarise(rows)
        assert [(row.setting, row.selector, row.clips) for row in found] == [
            ("a", "x", 2),
            ("b", "x", 1),
            ("a", "other", 1),
        ]
        assert (found[0].psnr, found[0].gaze_seconds, found[0].peak_memory_mb) == (25.0, 1.5, 5.0)
        assert (found[1].gaze_seconds, found[1].peak_memory_mb) == (None, None)

    def test_does_not_depend_on_the_order_of_clips(self) -> None:
        rows = [clip_row(psnr=0.1 * number, clip_name=str(number)) for number in range(50)]
        assert summarise(rows) == summarise(rows[::-1])

    def test_as_text_is_aligned_and_sorted_by_what_is_kept(self) -> None:
        rows = [
            clip_row(setting="much", actual_gaze_ratio=0.5, gaze_seconds=0.25),
            clip_row(setting="little", actual_gaze_ratio=0.001),
            clip_row(setting="little", actual_gaze_ratio=0.001, reconstructor="y"),
        ]
        text = summary_text(summarise(rows), heading=["Means"], loss_units={"x": "metres"})
        heading, *lines = text.splitlines()
        assert heading == "Means"
        assert "Rebuilt by x; loss: metres" in lines
        assert "Rebuilt by y; loss: in its own unit" in lines
        table = lines[lines.index("Rebuilt by x; loss: metres") + 2 :][:3]
        assert [line.split()[1] for line in table] == ["setting", "little", "much"]
        assert {line.index("%") for line in table[1:]} == {table[1].index("%")}
        assert "0.250" in table[2]
        assert "–" in table[1]


def record(start: int = 0, video: str = "a.mp4") -> ClipRecord:
    return ClipRecord(
        video=video,
        fingerprint="1 files",
        clip_name=f"a_{start}",
        clip_start=start,
        clips=(clip_row(clip_start=start),),
        frames=(frame_row(clip_start=start, psnr=math.inf), frame_row(predicted_loss=0.1)),
    )


def video_record() -> VideoRecord:
    return VideoRecord(
        video="a.mp4",
        fingerprint=None,
        name="a",
        clip_starts=(0, 16),
        width_px=5,
        height_px=6,
        fps=29.97,
        frames_read=32,
        notes=("torn",),
    )


REQUEST = {"seed": 0, "videos": ["a.mp4"], "clip_starts": None}


class TestJournal:
    def test_gives_back_what_was_added(self, tmp_path: Path) -> None:
        with Journal(tmp_path, REQUEST) as journal:
            journal.add(record())
            assert list(journal.records()) == [record()]
        with Journal(tmp_path, REQUEST) as journal:
            journal.add(video_record())
            assert list(journal.records()) == [record(), video_record()]

    @pytest.mark.parametrize("torn", [b'{"kind":"clip","vid', b'{"kind":"clip"}', b"\xff\x00"])
    def test_forgets_a_torn_last_line(self, tmp_path: Path, torn: bytes) -> None:
        with Journal(tmp_path, REQUEST) as journal:
            journal.add(record())
        with (tmp_path / JOURNAL).open("ab") as file:
            file.write(torn)
        with Journal(tmp_path, REQUEST) as journal:
            journal.add(record(16))
            assert list(journal.records()) == [record(), record(16)]

    def test_begins_anew_where_its_first_line_is_torn(self, tmp_path: Path) -> None:
        (tmp_path / JOURNAL).write_bytes(b'{"format":"autogaze-eval')
        with Journal(tmp_path, REQUEST) as journal:
            journal.add(record())
        with Journal(tmp_path, REQUEST) as journal:
            assert list(journal.records()) == [record()]

    @pytest.mark.parametrize(
        ("request_", "names"),
        [
            ({**REQUEST, "seed": 1}, "seed"),
            ({**REQUEST, "videos": ["b.mp4"], "seed": 2}, "seed, videos"),
            ({**REQUEST, "other": 1}, "other"),
            ({"seed": 0, "videos": ["a.mp4"]}, None),
        ],
    )
    def test_refuses_another_request(self, tmp_path: Path, request_: dict[str, object], names: str | None) -> None:
        with Journal(tmp_path, REQUEST) as journal:
            journal.add(record())
        if names is None:  # what is missing is as good as None
            Journal(tmp_path, request_).__exit__(None, None, None)
            return
        with pytest.raises(OutputError, match=f"differs from this one in: {names}; --overwrite starts over"):
            Journal(tmp_path, request_)
        with Journal(tmp_path, REQUEST) as journal:
            assert list(journal.records()) == [record()]

    def test_refuses_another_version_and_what_is_no_journal(self, tmp_path: Path) -> None:
        with Journal(tmp_path, REQUEST):
            pass
        header = json.loads((tmp_path / JOURNAL).read_text())
        (tmp_path / JOURNAL).write_text(json.dumps({**header, "version": 99}) + "\n")
        with pytest.raises(OutputError, match="version of the journal"):
            Journal(tmp_path, REQUEST)
        for foreign in ('{"a": 1}\n', "words\n", "[]\n"):
            (tmp_path / JOURNAL).write_text(foreign)
            with pytest.raises(OutputError, match="is no journal of an evaluation"):
                Journal(tmp_path, REQUEST)

    def test_a_damaged_line_is_told(self, tmp_path: Path) -> None:
        with Journal(tmp_path, REQUEST) as journal:
            journal.add(record())
            journal.add(record(16))
        lines = (tmp_path / JOURNAL).read_bytes().splitlines(keepends=True)
        (tmp_path / JOURNAL).write_bytes(lines[0] + b"{}\n" + lines[2])
        with Journal(tmp_path, REQUEST) as journal, pytest.raises(OutputError, match=r"line 2 of .* is damaged"):
            list(journal.records())

    @pytest.mark.skipif("sys.platform == 'win32'")
    def test_has_one_writer(self, tmp_path: Path) -> None:
        with (
            Journal(tmp_path, REQUEST),
            pytest.raises(OutputError, match="another evaluation is writing into"),
        ):
            Journal(tmp_path, REQUEST)


def test_summary_rows_come_back(tmp_path: Path) -> None:
    rows = summarise([clip_row(gaze_seconds=0.1, psnr=1 / 3), clip_row(setting="b")])
    write_rows(tmp_path / "s.csv", rows, kind=SummaryRow)
    assert read_rows(tmp_path / "s.csv", SummaryRow) == rows
