"""Pictures and videos: read from files, fitted to a world's frame, written while they are made.

Shapes: T video frames, H, W pixels. All frames are uint8 RGB arrays in host memory.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image, ImageOps, UnidentifiedImageError

from magi_world.config import require

Size = tuple[int, int]
# What Pillow may take a picture for: left to itself it also runs programs, for PostScript.
PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
# What FFmpeg may take a film for, and where from: a play list could name any file or address.
_FILM = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,ogg,flv,asf,"
    "apng,m4v,h264,hevc,wav,mp3,flac,aac",
}
MAX_FRAMES = 200_000  # of a film read whole, and of one picture that stands still
_BT709 = 1  # the number of ITU-R BT.709 in every colour field of a video stream
_SOON = 1e-6  # seconds; moments closer than this are the same


def load_image(path: str | Path) -> np.ndarray:
    """An image file as (H, W, 3) uint8, turned upright; transparency becomes black.

    Only ``PICTURE_FORMATS`` are read, whatever the name of the file says.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no image that can be read, or it is cut off.
    """
    file = _existing(path, "image")
    try:
        with Image.open(file, formats=PICTURE_FORMATS) as image:
            upright = _eight_bits(ImageOps.exif_transpose(image)).convert("RGBA")
    except UnidentifiedImageError:
        right = ", ".join(PICTURE_FORMATS)
        raise ValueError(f"image {file} cannot be read: it is none of {right}") from None
    # Pillow has no common error for what a damaged file makes its decoders do.
    except Exception as error:
        raise ValueError(f"image {file} cannot be read: {error}; a PNG or JPEG is right") from error
    black = Image.new("RGBA", upright.size, (0, 0, 0, 255))
    return np.array(Image.alpha_composite(black, upright).convert("RGB"))


def load_video(path: str | Path, fps: float | None = None, last: int | None = None) -> np.ndarray:
    """The frames of a video file as (T, H, W, 3) uint8.

    Args:
        fps: take frames at this pace, the nearest before each moment; None takes every frame.
        last: keep only so many, the newest; a start uses no more than a few chunks of them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no video that can be read, no frame in it, or an argument out of range.
    """
    require(fps is None or 0 < fps < math.inf, f"fps is {fps}; it must be positive, or None")
    require(last is None or last >= 1, f"last is {last}; it must be at least 1, or None")
    file = _existing(path, "video")
    try:
        # From the root on, so that no name is read as an address (12:30.mp4, http:/...).
        with av.open(str(file.absolute()), options=_FILM) as container:
            require(bool(container.streams.video), f"video {file} has no video stream")
            kept: deque[np.ndarray] = deque(maxlen=last)
            for frame in _frames_at(container.decode(video=0), fps, last):
                require(
                    last is not None or len(kept) < MAX_FRAMES,
                    f"video {file} has more than {MAX_FRAMES:,} frames",
                )
                kept.append(frame)
    except (av.FFmpegError, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise ValueError(f"video {file} cannot be read: {error}; an MP4 is right") from error
    require(bool(kept), f"video {file} has no frames")
    sizes = {frame.shape for frame in kept}
    require(len(sizes) == 1, f"video {file} changes its size: {sorted(sizes)}")
    return np.stack(kept)


def fit(frames: np.ndarray, size: Size) -> np.ndarray:
    """Scale frames (..., H, W, 3) to cover ``size`` = (height, width), and cut the middle out.

    Raises:
        ValueError: frames of another dtype or shape, or a size that is not two positive numbers.
    """
    shape, dtype = np.shape(frames), getattr(frames, "dtype", type(frames).__name__)
    require(
        isinstance(frames, np.ndarray) and dtype == np.uint8 and len(shape) >= 3 and shape[-1] == 3,
        f"frames are {dtype} of shape {shape}; they must be a uint8 array (..., H, W, 3)",
    )
    require(0 not in shape, f"frames have shape {shape}; no axis may be empty")
    require(
        len(size) == 2 and all(isinstance(n, int | np.integer) and n > 0 for n in size),
        f"size is {size}; it must be (height, width) in pixels",
    )
    if shape[-3:-1] == tuple(size):
        return frames
    (height, width), (rows, columns) = size, shape[-3:-1]
    factor = min(rows / height, columns / width)
    # The cut axis is rounded a little over its end otherwise, which Pillow refuses.
    used_rows, used_columns = min(rows, height * factor), min(columns, width * factor)
    top, left = (rows - used_rows) / 2, (columns - used_columns) / 2
    box = (left, top, min(columns, left + used_columns), min(rows, top + used_rows))
    scaled = [
        np.asarray(Image.fromarray(f).resize((width, height), Image.Resampling.LANCZOS, box))
        for f in frames.reshape(-1, *shape[-3:])
    ]
    return np.stack(scaled).reshape(*shape[:-3], height, width, 3)


@dataclass(frozen=True)
class VideoConfig:
    """How a video is written.

    frame_size: (height, width) of the frames that come in.
    upscale: whole factor by which pixels are repeated; None takes the smallest that gives at
        least ``MIN_LINES`` lines, because players blur small pictures.
    crf: H.264 quality, 0 (lossless) .. 51.
    codecs: tried in this order.
    """

    fps: float
    frame_size: Size
    upscale: int | None = None
    crf: int = 18
    codecs: tuple[str, ...] = ("libx264", "libopenh264", "mpeg4")

    MIN_LINES = 256

    def __post_init__(self) -> None:
        require(0 < self.fps < math.inf, f"VideoConfig.fps is {self.fps}; it must be positive")
        require(
            len(self.frame_size) == 2 and min(self.frame_size) > 0,
            f"VideoConfig.frame_size is {self.frame_size}; it must be (height, width)",
        )
        require(
            self.upscale is None or (type(self.upscale) is int and 1 <= self.upscale <= 64),
            f"VideoConfig.upscale is {self.upscale!r}; it must be a whole number from 1 to 64, "
            "or None",
        )
        require(0 <= self.crf <= 51, f"VideoConfig.crf is {self.crf}; it must be 0 .. 51")

    @property
    def factor(self) -> int:
        """By how much the picture grows."""
        return self.upscale or -(-self.MIN_LINES // self.frame_size[0])

    @property
    def video_size(self) -> Size:
        """(height, width) in the file; even, because the codecs want it so."""
        height, width = (n * self.factor for n in self.frame_size)
        return height + height % 2, width + width % 2


class VideoWriter:
    """An MP4 that grows with every frame, in fragments: a killed run leaves a playable file.

    Use it in a ``with`` block, or call `close`. At most the last second is lost to a kill.
    """

    def __init__(self, path: str | Path, config: VideoConfig) -> None:
        """Opens (and overwrites) the file; its folder is made.

        Raises:
            ValueError: a name that does not end in .mp4, or no codec is there.
            OSError: the file cannot be written.
        """
        self.path, self.config = Path(path), config
        require(self.path.suffix.lower() == ".mp4", f"path is {self.path}; it must end in .mp4")
        self.codec = _first_codec(config.codecs)
        self.frames_written = 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Fragments start at key frames and are flushed whole; the index goes to the front, empty.
        options = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
        with self._named():
            self._container: av.container.OutputContainer | None = av.open(
                str(self.path.absolute()), "w", format="mp4", options=options
            )
        rate = Fraction(config.fps).limit_denominator(1001)
        self._stream = cast(VideoStream, self._container.add_stream(self.codec, rate=rate))
        self._stream.height, self._stream.width = config.video_size
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.gop_size = max(1, round(config.fps))
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        if self.codec == "libx264":
            # Without look-ahead the encoder holds nothing back that a kill could lose.
            self._stream.options = {
                "crf": str(config.crf),
                "preset": "veryfast",
                "tune": "zerolatency",
            }
        else:
            context.bit_rate = 8 * config.video_size[0] * config.video_size[1]

    def write(self, frames: np.ndarray) -> None:
        """Add frames: uint8 (T, H, W, 3), or one of (H, W, 3).

        Raises:
            ValueError: wrong shape or dtype, or the writer was closed. The file stays good.
        """
        container = self._open()
        shape, dtype = np.shape(frames), getattr(frames, "dtype", type(frames).__name__)
        expected = (*self.config.frame_size, 3)
        require(
            dtype == np.uint8 and len(shape) in (3, 4) and shape[-3:] == expected,
            f"frames are {dtype} of shape {shape}; they must be uint8 of shape {expected}, or "
            f"(T, *{expected})",
        )
        for frame in frames.reshape(-1, *expected):
            picture = VideoFrame.from_ndarray(self._enlarged(frame), format="rgb24")
            picture = picture.reformat(format="yuv420p", dst_colorspace="ITU709")
            picture.pts = self.frames_written
            picture.time_base = 1 / Fraction(self._stream.codec_context.framerate)
            with self._named():
                for packet in self._stream.encode(picture):
                    container.mux(packet)
            self.frames_written += 1

    def close(self) -> None:
        """Finish the file. A second call does nothing.

        Raises:
            OSError: the file cannot be written; it is closed all the same.
        """
        if self._container is None:
            return
        container, self._container = self._container, None
        with self._named():
            try:
                for packet in self._stream.encode():
                    container.mux(packet)
            finally:
                container.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """FFmpeg's errors as those of the file."""
        try:
            yield
        except av.FFmpegError as error:
            reason = error.strerror or str(error)
            raise OSError(error.errno, f"{self.path} cannot be written: {reason}") from error

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _open(self) -> av.container.OutputContainer:
        if self._container is None:
            raise ValueError(f"{self.path} was closed; make a new VideoWriter")
        return self._container

    def _enlarged(self, frame: np.ndarray) -> np.ndarray:
        large = enlarge(frame, self.config.factor)
        height, width = self.config.video_size
        missing = ((0, height - large.shape[0]), (0, width - large.shape[1]), (0, 0))
        return np.ascontiguousarray(np.pad(large, missing, mode="edge"))


def enlarge(frames: np.ndarray, factor: int) -> np.ndarray:
    """(..., H, W, 3) with every pixel repeated ``factor`` times both ways."""
    return frames.repeat(factor, -3).repeat(factor, -2) if factor > 1 else frames


def _first_codec(names: tuple[str, ...]) -> str:
    for name in names:
        try:
            av.Codec(name, "w")
        except ValueError:  # what PyAV raises for a codec that was not built in
            continue
        if name != names[0]:
            warnings.warn(
                f"the video codec {names[0]} is not in this build of PyAV; using {name}, which "
                "gives larger or coarser files (the wheels of `pip install av` have libx264)",
                stacklevel=3,
            )
        return name
    raise ValueError(f"codecs is {names}; none is in this build of PyAV: `pip install av` has them")


def _existing(path: str | Path, what: str) -> Path:
    require(
        isinstance(path, str | Path),
        f"{what} is a {type(path).__name__}; it must be the path of a file",
    )
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(f"{what} {file} does not exist")
    require(not file.is_dir(), f"{what} {file} is a folder; it must be a file")
    require(file.is_file(), f"{what} {file} is no plain file")
    return file


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits as grey of 8; Pillow would make white of all above 255."""
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)
        return Image.fromarray((grey.clip(0, 65535) >> 8).astype(np.uint8))
    require(image.mode != "F", "its pixels are fractions, not 8 or 16 bits")
    return image


def _frames_at(
    frames: Iterator[VideoFrame], fps: float | None, last: int | None
) -> Iterator[np.ndarray]:
    """The frame that is on show at each multiple of 1 / fps; all of them without ``fps``.

    Of a picture that stands still no more than ``last`` are given, if only so many are wanted.
    """
    shown: VideoFrame | None = None
    taken, begin = 0, 0.0
    for frame in frames:
        if fps is None or frame.time is None:
            yield _rgb(frame)
            continue
        begin = frame.time if shown is None else begin
        if shown is not None:
            end = _moments(frame.time - begin, fps)
            yield from _standing(shown, end - taken, last)
            taken = max(taken, end)
        shown = frame
    if shown is None or shown.time is None or fps is None:
        return
    seconds = float(shown.duration * shown.time_base) if shown.time_base else 0.0
    end = max(_moments(shown.time + seconds - begin, fps), int(taken == 0))
    yield from _standing(shown, end - taken, last)


def _rgb(frame: VideoFrame) -> np.ndarray:
    """(H, W, 3) uint8.

    Releases of PyAV before 16.2 take BT.601 for every film, unless another space than the film's
    is asked for; RGB itself has none.
    """
    if frame.colorspace != _BT709:
        return frame.to_ndarray(format="rgb24")
    return frame.to_ndarray(format="rgb24", src_colorspace="ITU709", dst_colorspace="ITU601")


def _moments(seconds: float, fps: float) -> int:
    """How many multiples of 1 / fps, from 0, lie before ``seconds``."""
    return max(0, math.ceil((seconds - _SOON) * fps))


def _standing(frame: VideoFrame, count: int, last: int | None) -> Iterator[np.ndarray]:
    if count > 0:
        require(
            last is not None or count <= MAX_FRAMES,
            f"one picture of the video stands still for {count:,} frames",
        )
        pixels = _rgb(frame)
        yield from (pixels for _ in range(count if last is None else min(count, last)))
