"""Watching plays a source in real time, looks at the newest frame, counts what it is too late for, and never grows."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import autogaze
from autogaze.cli import main
from autogaze.errors import VideoError
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.overlay import OverlayPage
from autogaze.watching import Tally, Watched, WatchError, WatchSummary, watch
from autogaze.watching.capture import Capture, as_they_come, at_rate, by_its_times
from autogaze.watching.latency import Latencies
from autogaze.watching.meter import Meter, summary_table
from autogaze.watching.window import Window, WindowError
from make_video import moving_frames, numbered_frames, numbers_of, write_video

SMALL = Path(__file__).parent / "data" / "gaze_small"


def reader_of(frames: NDArray[np.uint8]) -> Any:
    return autogaze.open_video(frames, window_frames=1)


class TestCapture:
    def test_the_newest_frame_comes_first_and_the_others_are_counted(self) -> None:
        frames, seen = numbered_frames(30), []
        with Capture(reader_of(frames), due=at_rate(200)) as capture:
            for captured in capture.newest():
                seen += numbers_of(captured.frames.rgb)
                assert captured.frames.number.tolist() == seen[-1:]
                time.sleep(0.03)
        assert seen == sorted(set(seen))
        assert seen[-1] == 29  # nobody came after it
        assert len(seen) < 15
        assert capture.num_captured == 30
        assert capture.num_dropped == 30 - len(seen)

    @pytest.mark.parametrize(("due", "interval_seconds"), [(by_its_times, 1 / 30), (at_rate(50), 1 / 50)])
    def test_frames_of_a_file_come_when_they_are_due(self, due: Any, interval_seconds: float) -> None:
        start_seconds = time.perf_counter()
        with Capture(reader_of(numbered_frames(6)), due=due) as capture:
            moments = {int(c.frames.number[0]): c.at_seconds for c in capture.newest()}
        for number, moment_seconds in moments.items():
            assert number * interval_seconds <= moment_seconds - start_seconds < number * interval_seconds + 2

    def test_a_camera_is_not_made_to_wait(self) -> None:
        with Capture(reader_of(numbered_frames(60)), due=as_they_come) as capture:
            last = list(capture.newest())[-1]
        assert last.frames.number.tolist() == [59]

    def test_a_source_that_stalls_does_not_keep_anyone(self) -> None:
        start = time.perf_counter()
        with Capture(reader_of(numbered_frames(9)), due=lambda number, _: 60.0 * number) as capture:
            assert len(list(capture.newest(until_seconds=start + 0.2))) == 1
        assert time.perf_counter() - start < 1.5
        assert not capture._thread.is_alive()

    def test_what_goes_wrong_is_told_after_the_frames_before_it(self, tmp_path: Path) -> None:
        for number, side_px in enumerate((32, 32, 48)):
            Image.new("RGB", (side_px, 32)).save(tmp_path / f"{number}.png")
        seen = 0
        with (
            pytest.raises(VideoError, match="starts with 32×32 px"),
            Capture(autogaze.open_video(tmp_path, window_frames=1), due=at_rate(20)) as capture,
        ):
            for _ in capture.newest():
                seen += 1
        assert seen == 2


class TestLatencies:
    def test_percentiles_are_as_near_as_they_say(self) -> None:
        seconds = np.random.default_rng(0).lognormal(-4, 1, 5000)
        counted = Latencies()
        for value in seconds:
            counted.add(value)
        for percent in (0, 1, 50, 95, 99, 100):
            exact = np.percentile(seconds, percent, method="inverted_cdf")
            assert counted.percentile_seconds(percent) == pytest.approx(exact, rel=0.005)
        told = counted.summary()
        assert told.mean == pytest.approx(1e3 * seconds.mean())
        assert told.max == pytest.approx(1e3 * seconds.max())
        assert told.p95 == 1e3 * counted.percentile_seconds(95)

    def test_of_nothing_and_of_extremes(self) -> None:
        counted = Latencies()
        assert counted.summary().p99 == counted.summary().mean == 0
        for value in (0.0, 1e9):
            counted.add(value)
        assert counted.summary().max == 1e12


def collected(source: Any, **options: Any) -> tuple[list[Gaze], WatchSummary]:
    gazes: list[Gaze] = []

    def on_frame(seen: Watched, tally: Tally) -> bool:
        gazes.append(seen.gaze)
        assert seen.latency_seconds >= seen.gaze_seconds > 0
        assert tally.frames == len(gazes)
        return True

    return gazes, watch(source, on_frame=on_frame, **options)


class TestWatch:
    @pytest.mark.parametrize("model", ["replenish", SMALL], ids=["replenish", "gaze_small"])
    def test_what_is_not_dropped_is_gazed_at_as_a_stream_is(self, model: Any) -> None:
        frames = moving_frames(20)
        options: dict[str, Any] = {"model": model, "ratio": 0.2, "mode": "resize"}
        gazes, summary = collected(frames, fps=12, **options)
        whole = autogaze.gaze(frames, **options)
        assert (summary.frames_captured, summary.frames_dropped) == (20, 20 - len(gazes))
        if len(gazes) == 20:  # a machine may be too busy even for this
            assert np.array_equal(Gaze.concatenate(gazes).index, whole.index)
        assert (summary.ended, summary.frames_gazed) == ("source", len(gazes))
        assert summary.kept_share == pytest.approx(sum(g.num_gazes for g in gazes) / sum(g.num_patches for g in gazes))
        assert summary.settings.ratio == 0.2
        assert 19 / 12 < summary.seconds < 10
        assert summary.fps == pytest.approx(len(gazes) / summary.seconds)

    def test_who_comes_late_sees_less_and_no_later(self) -> None:
        def slow(seen: Watched, tally: Tally) -> bool:
            time.sleep(0.06)
            return True

        summary = watch(moving_frames(40), fps=60, mode="resize", on_frame=slow)
        assert summary.frames_captured == 40
        assert 0 < summary.frames_gazed < 25
        assert summary.frames_dropped == 40 - summary.frames_gazed
        # It waits for one frame at most, not for a queue.
        assert summary.latency_ms.max < summary.gaze_ms.max + 400

    def test_ends_when_the_time_is_up(self) -> None:
        summary = watch(moving_frames(30), fps=10, seconds=0.5, mode="resize")
        assert summary.ended == "seconds"
        assert summary.frames_gazed <= 6

    def test_may_end_before_the_first_frame(self) -> None:
        summary = watch(moving_frames(3), fps=10, seconds=1e-9, mode="resize")
        assert (summary.ended, summary.frames_gazed, summary.seconds, summary.fps) == ("seconds", 0, 0, 0)
        assert summary_table(summary).row_count == 6

    def test_ends_when_the_caller_has_enough(self) -> None:
        summary = watch(moving_frames(90), fps=30, mode="resize", on_frame=lambda seen, tally: tally.frames < 3)
        assert (summary.ended, summary.frames_gazed) == ("asked", 3)

    def test_ends_with_an_interruption(self) -> None:
        def interrupt(seen: Watched, tally: Tally) -> bool:
            raise KeyboardInterrupt

        summary = watch(moving_frames(9), mode="resize", on_frame=interrupt)
        assert (summary.ended, summary.frames_gazed) == ("interrupted", 1)

    @pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
    @pytest.mark.parametrize("name", ["fps", "seconds"])
    def test_numbers_that_mean_nothing(self, name: str, value: float) -> None:
        options: dict[str, Any] = {name: value}
        with pytest.raises(WatchError, match=rf"{name} must be a number above 0, got {value}"):
            watch(moving_frames(2), **options)

    def test_a_live_stream_has_a_rate_of_its_own(self, tmp_path: Path) -> None:
        # A pipe is an address without an end, as a camera is.
        path = write_video(tmp_path / "live.h264", moving_frames(5), container="h264")
        reading, writing = os.pipe()
        os.write(writing, path.read_bytes())
        os.close(writing)
        with pytest.raises(WatchError, match=rf"pipe:{reading} comes at a rate of its own; leave fps out"):
            watch(f"pipe:{reading}", fps=10, mode="resize")

    def test_what_cannot_be_watched(self) -> None:
        with pytest.raises(VideoError, match=r"there is no file or folder missing\.mp4"):
            watch("missing.mp4")
        with pytest.raises(ValueError, match="motion-vectors reads motion vectors"):
            watch(moving_frames(2), model="motion-vectors", ratio=0.1)


LONG_WATCH = """
import sys
import numpy as np
import psutil
import autogaze
from autogaze.watching import Tally
from autogaze.watching.capture import every_frame
from autogaze.watching.watch import gazed
from make_video import moving_frames

session = autogaze.stream(height_px=48, width_px=64, model=sys.argv[1], ratio=0.05, mode="resize")
tally, process = Tally(session.layout), psutil.Process()
frames, few = np.empty((2000, 48, 64, 3), np.uint8), moving_frames(20)
for t in range(2000):  # in place: what is left of copies would hide what is kept
    frames[t] = few[t % 20]
for seen in gazed(every_frame(autogaze.open_video(frames, window_frames=1)), session):
    tally.add(seen)
    if tally.frames in (200, 2000):
        print(process.memory_info().rss)
"""


@pytest.mark.parametrize("model", ["replenish", SMALL], ids=["replenish", "gaze_small"])
def test_memory_does_not_grow(model: str | Path) -> None:
    """From frame 200 to frame 2000, in a process that has no memory of other tests to use up, and no clock."""
    done = subprocess.run(
        [sys.executable, "-c", LONG_WATCH, model], capture_output=True, text=True, timeout=300, cwd=SMALL.parents[1]
    )
    assert done.returncode == 0, done.stderr
    early, late = map(int, done.stdout.split())
    assert abs(late - early) < 4 * 2**20


def seen_frame(*, kept: int = 5) -> tuple[Watched, Tally]:
    layout = FrameLayout.resized(PatchGrid(), height_px=48, width_px=64)
    rgb = moving_frames(1)[0]
    gaze = Gaze(index=np.arange(kept), count=np.array([kept]), layout=layout, time_seconds=np.array([1.5]))
    seen = Watched(rgb=rgb, gaze=gaze, latency_seconds=0.02, gaze_seconds=0.01)
    tally = Tally(layout)
    tally.add(seen)
    tally.count(captured=3, dropped=2)
    return seen, tally


class FakeCv2(types.ModuleType):
    """OpenCV with windows, as far as they are used."""

    WINDOW_NORMAL, WINDOW_KEEPRATIO, WND_PROP_VISIBLE = 0, 0, 4

    def __init__(self, *, gui: str = "QT5", key: int = -1, visible: float = 1.0) -> None:
        super().__init__("cv2")
        self.gui, self.key, self.visible = gui, key, visible
        self.shown: list[NDArray[np.uint8]] = []
        self.closed: list[str] = []

    def getBuildInformation(self) -> str:
        return f"General\n\n  GUI:                           {self.gui}\n    VTK support: NO\n"

    def namedWindow(self, title: str, flags: int) -> None: ...

    def resizeWindow(self, title: str, width: int, height: int) -> None: ...

    def imshow(self, title: str, picture: NDArray[np.uint8]) -> None:
        self.shown.append(np.array(picture))

    def waitKey(self, milliseconds: int) -> int:
        return self.key

    def getWindowProperty(self, title: str, name: int) -> float:
        return self.visible

    def destroyWindow(self, title: str) -> None:
        self.closed.append(title)


class TestWindow:
    @pytest.fixture(autouse=True)
    def _a_display(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DISPLAY", ":0")

    @pytest.mark.parametrize(
        ("key", "visible", "goes_on"), [(-1, 1.0, True), (ord("x"), 1.0, True), (ord("q"), 1.0, False)]
    )
    def test_shows_frame_and_gaze_until_someone_leaves(
        self, monkeypatch: pytest.MonkeyPatch, key: int, visible: float, goes_on: bool
    ) -> None:
        cv2 = FakeCv2(key=key, visible=visible)
        monkeypatch.setitem(sys.modules, "cv2", cv2)
        seen, tally = seen_frame()
        with Window("a title") as window:
            assert window.show(seen, tally) is goes_on
        page = OverlayPage(tally.layout).draw(seen.rgb, seen.gaze, time_seconds=1.5, mean_share=tally.kept_share)
        assert np.array_equal(cv2.shown[0], page[..., ::-1])
        assert cv2.closed == ["a title"]

    def test_is_gone_when_it_is_closed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "cv2", FakeCv2(visible=0.0))
        assert Window("a title").show(*seen_frame()) is False

    def test_opencv_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "cv2", None)
        with pytest.raises(WindowError, match="a window needs OpenCV: pip install opencv-python, or leave --window"):
            Window("a title")

    def test_opencv_has_no_windows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "cv2", FakeCv2(gui="NONE"))
        with pytest.raises(WindowError, match="pip uninstall opencv-python-headless, then pip install opencv-python"):
            Window("a title")

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others always have a display")
    def test_there_is_no_display(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "cv2", FakeCv2())
        monkeypatch.delenv("DISPLAY")
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        with pytest.raises(WindowError, match="there is no display"):
            Window("a title")


def test_a_meter_nobody_sees_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Meter(visible=False) as meter:
        meter.update(seen_frame()[1])
    assert capsys.readouterr() == ("", "")


class TestCommand:
    def test_writes_what_the_function_returns(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = write_video(tmp_path / "clip.mp4", moving_frames(6), fps=20)
        words = [
            "watch",
            str(path),
            "--resize",
            "--ratio",
            "0.1",
            "--fps",
            "10",
            "--json",
            str(tmp_path / "out/w.json"),
        ]
        with pytest.raises(SystemExit) as ended:
            main(words)
        out, err = capsys.readouterr()
        assert (ended.value.code, err) == (0, "")
        said = json.loads((tmp_path / "out/w.json").read_text())
        assert (said["format"], said["version"], said["ended"]) == ("autogaze-watch", 1, "source")
        assert (said["source"], said["settings"]["ratio"], said["settings"]["mode"]) == (str(path), 0.1, "resize")
        assert (said["height_px"], said["width_px"], said["frames_captured"]) == (48, 64, 6)
        assert said["frames_gazed"] + said["frames_dropped"] == 6
        assert said["latency_ms"]["p50"] <= said["latency_ms"]["p95"] <= said["latency_ms"]["p99"]
        assert re.search(rf"frames +{said['frames_gazed']} gazed at, {said['frames_dropped']} dropped", out)
        assert f"{path}, 64×48 px, replenish" in out

    def test_quiet_says_nothing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = write_video(tmp_path / "clip.mp4", moving_frames(3))
        with pytest.raises(SystemExit):
            main(["watch", str(path), "--resize", "--quiet"])
        assert capsys.readouterr() == ("", "")

    def test_a_summary_that_could_not_be_written(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "out").write_text("")
        with pytest.raises(SystemExit) as ended:
            main(["watch", "missing.mp4", "--json", str(tmp_path / "out/w.json")])
        assert ended.value.code == 2
        assert "is a file; results need a folder" in capsys.readouterr().err

    @pytest.mark.skipif(os.name == "nt", reason="needs a terminal of POSIX")
    def test_ctrl_c_ends_it_with_what_it_saw(self, tmp_path: Path) -> None:
        """As a process, at a terminal."""
        pty = pytest.importorskip("pty")
        path = write_video(tmp_path / "long.mp4", np.concatenate([moving_frames(60)] * 30), fps=30)
        master, terminal = pty.openpty()
        process = subprocess.Popen(
            [*(sys.executable, "-m", "autogaze_command", "watch", "long.mp4", "--resize", "--json", "seen.json")],
            stdout=subprocess.PIPE,
            stderr=terminal,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "160"},
        )
        os.close(terminal)
        shown, give_up = "", time.monotonic() + 90
        interrupt_at = None
        while process.poll() is None and time.monotonic() < give_up:
            if select.select([master], [], [], 0.05)[0]:
                with contextlib.suppress(OSError):  # nobody holds the other end any more
                    shown += os.read(master, 100_000).decode(errors="replace")
            if interrupt_at is None and " dropped of " in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown):
                interrupt_at = time.monotonic() + 2
            if interrupt_at is not None and time.monotonic() > interrupt_at:
                process.send_signal(signal.SIGINT)
                interrupt_at = give_up
        out, _ = process.communicate(timeout=30)
        os.close(master)
        assert process.returncode == 0
        said = json.loads((tmp_path / "seen.json").read_text())
        assert said["ended"] == "interrupted"
        assert 2 <= said["frames_gazed"] <= said["frames_captured"]
        assert 1 < said["seconds"] < 59
        assert re.search(r"% kept, \d+ patches · [\d.]+ fps · [\d.]+ ms, p95 [\d.]+, p99 [\d.]+ · ", shown)
        assert path.name in out and "latency" in out
