"""Coded video as a source of frames: files, addresses and cameras, through PyAV."""

from __future__ import annotations

import platform
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import cast

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from autogaze.errors import VideoError
from autogaze.video_pixels import FrameConverter, check_size
from autogaze.video_sources import ASSUMED_FPS, CAMERA, SourceFrame, is_url, name_of
from autogaze.video_timing import Damage, Timeline

URL_TIMEOUTS_SECONDS = (10.0, 30.0)
"""How long opening an address, and each read from it, may take."""

# fmt: off
MOTION_VECTOR_CODECS = frozenset({
    "h264", "mpeg1video", "mpeg2video", "mpeg4", "h263", "h263p", "flv1", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3",
    "msmpeg4", "wmv1", "wmv2",
})
# fmt: on
"""Codecs whose decoder tells its motion vectors."""

_TEXT_CODECS = frozenset({"ansi", "bintext", "xbin", "idf"})
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_MAX_FAILED_READS = 8


class ContainerSource:
    """A coded video, decoded as a stream with its times, rotation and damage.

    Non-square pixels are taken as they are stored, and the two fields of interlaced video as one frame.
    """

    def __init__(
        self,
        location: str,
        *,
        name: str,
        format: str | None = None,
        options: Mapping[str, str] | None = None,
        motion_vectors: bool = False,
        live: bool = False,
    ) -> None:
        """Open and decode the first frame; ``format`` and ``options`` are libavformat's, ``live`` means endless.

        Raises:
            VideoError: it cannot be opened, holds no video, or nothing in it can be decoded.
        """
        self.name = name
        self.warnings: list[str] = []
        self._location = location
        self._live = live
        self._motion_vectors = motion_vectors
        self._container = _open(location, format=format, options=options or {})
        try:
            self._stream = _video_stream(self._container, location)
            self._decoder = _decoder(self._stream, location, motion_vectors=motion_vectors)
            check_size(max(1, self._stream.height), max(1, self._stream.width), what=location)
            self._damage = Damage(self.warnings)
            self._frames = self._decode()
            first = next(self._frames, None)
            if first is None:
                reason = f" ({self.warnings[0]})" if self.warnings else ""
                raise VideoError(f"nothing in {location} can be decoded{reason}")
            check_size(first.height, first.width, what=location)
        except BaseException:
            self._container.close()
            raise
        self._first: av.VideoFrame | None = first
        self._converter = FrameConverter(first)
        self.height_px, self.width_px = self._converter.height_px, self._converter.width_px
        self.fps = _rate(self._stream)
        self.rounding_seconds = float(self._stream.time_base or 0) / 2
        self.num_frames = None if live else self._estimate_frames()

    def frames(self) -> Iterator[SourceFrame]:
        """All frames that can be decoded."""
        timeline = Timeline(
            time_base=self._stream.time_base or Fraction(1, 1000),
            # AVI stores when a frame is decoded, not when it is shown; at a constant rate that is as good.
            start=None if self._decodes_in_order() else self._stream.start_time,
            interval_seconds=1 / self.fps,
        )
        rescaled = False
        number = -1
        while (frame := self._next()) is not None:
            number += 1
            stamp = frame.dts if self._decodes_in_order() else frame.pts
            duration_seconds = timeline.duration_seconds(frame.duration)
            time_seconds = timeline.seconds(stamp, duration=frame.duration)
            self._damage.see(number, time_seconds, duration_seconds, corrupt=frame.is_corrupt, steady=not self._live)
            if not rescaled and not self._converter.fits(frame):
                rescaled = True
                self.warnings.append(
                    f"the size changes at frame {number} ({time_seconds:.3f} s); "
                    f"frames of other sizes are rescaled to {self.width_px}×{self.height_px} px"
                )
            yield SourceFrame(
                number=number,
                time_seconds=time_seconds,
                duration_seconds=duration_seconds,
                rgb=partial(self._converter.rgb, frame),
                motion_vectors=partial(self._converter.motion_vectors, frame) if self._motion_vectors else None,
            )
        self._damage.finish(None if self._live else self._promised_seconds(), interval_seconds=1 / self.fps)

    def count_frames(self) -> int:
        """How many frames there are: packets are read and, where a packet need not be a frame, decoded.

        Raises:
            VideoError: a camera has no end.
        """
        if self._live:
            raise VideoError(f"{self._location} has no end that frames could be spread over; use stride or fps instead")
        with _open(self._location, format=None, options={}) as container:
            stream = _video_stream(container, self._location)
            if stream.codec_context.name == "vp8":  # has packets that are never shown
                stream.thread_type = "AUTO"
                return sum(1 for _ in _recovering(container, stream, stream.codec_context, Damage([])))
            packets = _packets(container, stream, Damage([]))
            return max(1, sum(not packet.is_discard for packet in packets))

    def close(self) -> None:
        """Close the file, connection or device."""
        self._first = None
        self._frames.close()
        self._container.close()

    def _next(self) -> av.VideoFrame | None:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return next(self._frames, None)

    def _decode(self) -> Generator[av.VideoFrame]:
        return _recovering(self._container, self._stream, self._decoder, self._damage)

    def _decodes_in_order(self) -> bool:
        return self._container.format.name == "avi"

    def _estimate_frames(self) -> int | None:
        if self._stream.frames > 0:
            return self._stream.frames
        if self._promised_seconds() is not None:
            seconds = self._promised_seconds()
        else:
            seconds = self._container.duration / av.time_base if self._container.duration else None
        return max(1, round(seconds * self.fps)) if seconds else None

    def _promised_seconds(self) -> float | None:
        """Length of the video stream by what the file says of it, None if it says nothing one can rely on."""
        stream = self._stream
        if stream.duration and stream.time_base:
            # The duration of an AVI is guessed from the size of the file, so a cut-off one seems whole.
            header_seconds = stream.frames / self.fps if self._decodes_in_order() else 0.0
            return max(float(stream.duration * stream.time_base), header_seconds)
        start_seconds = float((stream.start_time or 0) * (stream.time_base or 0))
        if "DURATION" in stream.metadata:  # Matroska: when the last frame of this stream ends
            with suppress(ValueError):
                hours, minutes, seconds = stream.metadata["DURATION"].split(":")
                return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - start_seconds
        if "matroska" in self._container.format.name and len(self._container.streams) == 1:
            return self._container.duration / av.time_base - start_seconds if self._container.duration else None
        return None


def open_file(location: str, *, motion_vectors: bool = False) -> ContainerSource:
    """A video file or an address.

    Raises:
        VideoError: it cannot be opened or nothing in it can be decoded.
    """
    if not is_url(location) and not Path(location).exists():
        raise VideoError(f"there is no file or folder {location}")
    return ContainerSource(location, name=name_of(location), motion_vectors=motion_vectors)


def open_camera(source: str, *, motion_vectors: bool = False) -> ContainerSource:
    """A webcam by number or name: ``camera:0`` is /dev/video0 on Linux, the first camera on macOS.

    Raises:
        VideoError: there is no such camera, or it is busy.
    """
    camera = source.removeprefix(CAMERA)
    system = platform.system()
    options: dict[str, str] = {}
    if system == "Linux":
        location, format = (f"/dev/video{camera}" if camera.isdigit() else camera), "v4l2"
        if not Path(location).exists():
            present = ", ".join(sorted(map(str, Path("/dev").glob("video[0-9]*")))) or "none"
            raise VideoError(f"{source}: there is no {location}; cameras present: {present}")
    elif system == "Darwin":
        location, format, options = f"{camera}:none", "avfoundation", {"framerate": "30"}
    else:
        if camera.isdigit() or not camera:
            raise VideoError(f"{source}: name the camera as Windows does, for example camera:Integrated Camera")
        location, format = f"video={camera}", "dshow"
    return ContainerSource(
        location, name=name_of(source), format=format, options=options, motion_vectors=motion_vectors, live=True
    )


def _open(location: str, *, format: str | None, options: Mapping[str, str]) -> InputContainer:
    timeout = URL_TIMEOUTS_SECONDS if is_url(location) else None
    # FFmpeg takes what stands before a colon for a protocol, unless a slash comes first.
    place = str(Path(location).absolute()) if format is None and not is_url(location) else location
    try:
        return av.open(place, "r", format=format, options=dict(options), timeout=timeout, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(
            f"{location} cannot be opened as a video: {_reason(error)}; it may be incomplete or not a video"
        ) from error


def _video_stream(container: InputContainer, location: str) -> VideoStream:
    videos = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not videos:
        kinds = " and ".join(sorted({stream.type for stream in container.streams}))
        only = f"only {kinds}" if kinds else "nor anything else; it may be incomplete"
        raise VideoError(f"{location} holds no video, {only}")
    best = container.streams.best("video")
    stream = best if isinstance(best, VideoStream) and best in videos else videos[0]
    # Streams of a codec that nothing here decodes have no context, whatever the annotations say.
    context = cast("VideoCodecContext | None", stream.codec_context)
    if context is None:
        raise VideoError(f"{location} is coded in a way that this build of FFmpeg cannot decode; convert it to h264")
    if context.name in _TEXT_CODECS:
        raise VideoError(f"{location} holds text, not a video")
    return stream


def _decoder(stream: VideoStream, location: str, *, motion_vectors: bool) -> VideoCodecContext:
    context = stream.codec_context
    if motion_vectors:
        if context.name not in MOTION_VECTOR_CODECS:
            raise VideoError(
                f"{location} is coded as {context.name}, which tells no motion vectors; "
                "h264, mpeg4 and mpeg2video do (or choose a selector that needs none)"
            )
        context.options = {"flags2": "+export_mvs"}
        # Threads that decode several frames at once lose some of the vectors.
        context.thread_type = "SLICE"
        return context
    if stream.metadata.get("alpha_mode") == "1" and context.name in _ALPHA_DECODERS:
        with suppress(av.error.FFmpegError):
            alpha_context = av.CodecContext.create(_ALPHA_DECODERS[context.name], "r")
            assert isinstance(alpha_context, VideoCodecContext)
            alpha_context.extradata = context.extradata
            return alpha_context
    context.thread_type = "AUTO"
    return context


def _recovering(
    container: InputContainer, stream: VideoStream, decoder: VideoCodecContext, damage: Damage
) -> Generator[av.VideoFrame]:
    """Every frame that can be decoded, past packets that cannot."""
    for packet in _packets(container, stream, damage):
        try:
            frames = decoder.decode(packet)
        except (av.error.FFmpegError, OSError) as error:
            damage.note(_reason(error))
            continue
        yield from frames
    with suppress(av.error.FFmpegError, OSError):
        yield from decoder.decode(None)


def _packets(container: InputContainer, stream: VideoStream, damage: Damage) -> Iterator[av.Packet[VideoStream]]:
    """The packets that hold data, read on past damage that is not the end."""
    failed = 0
    while failed < _MAX_FAILED_READS:
        try:
            for packet in container.demux(stream):
                if packet.size:
                    failed = 0
                    yield packet
            return
        except av.error.InvalidDataError as error:
            failed += 1
            damage.note(_reason(error))
        except (av.error.FFmpegError, OSError) as error:
            damage.note(f"reading stopped: {_reason(error)}")
            return


def _rate(stream: VideoStream) -> float:
    # A stream without a container has no average, only the rate its codec names.
    rates = (stream.average_rate, stream.guessed_rate)
    for rate in rates if stream.start_time is not None else rates[::-1]:
        if rate and 0 < rate <= 1000:
            return float(rate)
    return ASSUMED_FPS


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
