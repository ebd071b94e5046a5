"""Reading, fitting and writing pictures and videos."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from magi_world.io import media
from magi_world.io.media import VideoConfig, VideoWriter, fit, load_image, load_video


def gradient(count: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Smooth frames whose brightness tells their number."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[..., 0] = np.arange(width) * 4
    frames[..., 1] = np.arange(height)[:, None] * 4
    frames[..., 2] = (np.arange(count) * (240 // max(count, 1)))[:, None, None]
    return frames


def write(path: Path, frames: np.ndarray, fps: float = 16.0, **options: object) -> Path:
    with VideoWriter(path, VideoConfig(fps, frames.shape[1:3], **options)) as writer:
        writer.write(frames)
    return path


def test_load_image_gives_the_pixels_of_a_png(tmp_path: Path) -> None:
    pixels = gradient(1)[0]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), pixels)


def test_load_image_turns_transparency_to_black_and_uprights_the_picture(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (4, 2), (255, 255, 255, 0))
    clear.save(tmp_path / "clear.png")
    assert load_image(tmp_path / "clear.png").max() == 0
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned by 90 degrees
    Image.new("RGB", (4, 2), "red").save(tmp_path / "turned.jpg", exif=exif)
    assert load_image(tmp_path / "turned.jpg").shape == (4, 2, 3)


@pytest.mark.parametrize("load", [load_image, load_video])
def test_bad_files_are_named(tmp_path: Path, load: object) -> None:
    broken = tmp_path / "broken.bin"
    broken.write_bytes(b"this is text, not a picture")
    with pytest.raises(FileNotFoundError, match=r"missing\.png does not exist"):
        load(tmp_path / "missing.png")
    with pytest.raises(ValueError, match="is a folder; it must be a file"):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"broken\.bin cannot be read"):
        load(broken)
    with pytest.raises(ValueError, match="is a int; it must be the path of a file"):
        load(3)


def test_a_cut_off_image_is_an_error_not_a_grey_half(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    half = (tmp_path / "whole.png").read_bytes()[:6000]
    (tmp_path / "half.png").write_bytes(half)
    with pytest.raises(ValueError, match=r"half\.png cannot be read"):
        load_image(tmp_path / "half.png")


def test_a_written_video_reads_back(tmp_path: Path) -> None:
    frames = gradient(20)
    path = write(tmp_path / "new folder" / "v.mp4", frames, upscale=1, crf=0)
    read = load_video(path)
    assert read.shape == frames.shape
    # Colour is kept at half resolution, so compare what is smooth.
    assert np.abs(read.astype(int) - frames).mean() < 4
    with av.open(str(path)) as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx(16)
        assert container.streams.video[0].codec_context.name == "h264"


@pytest.mark.parametrize(("fps", "wanted"), [(8.0, 10), (32.0, 40), (16.0, 20)])
def test_load_video_takes_another_pace(tmp_path: Path, fps: float, wanted: int) -> None:
    path = write(tmp_path / "v.mp4", gradient(20), upscale=1)
    read = load_video(path, fps=fps)
    assert len(read) == wanted
    brightness = read[..., 2].mean((1, 2))
    np.testing.assert_allclose(brightness, np.arange(wanted) * 16 // fps * 12, atol=4)


def test_load_video_keeps_the_newest_frames(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mp4", gradient(20), upscale=1)
    np.testing.assert_array_equal(load_video(path, last=3), load_video(path)[-3:])
    for bad in ({"last": 0}, {"fps": 0.0}):
        with pytest.raises(ValueError, match="it must be"):
            load_video(path, **bad)


def test_audio_only_files_are_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(ValueError, match="has no video stream"):
        load_video(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("frame_size", "upscale", "video_size"),
    [
        ((64, 64), None, (256, 256)),
        ((32, 48), 3, (96, 144)),
        ((480, 832), None, (480, 832)),
        ((33, 47), 1, (34, 48)),
    ],
)
def test_pictures_grow_by_whole_factors(
    tmp_path: Path, frame_size: tuple[int, int], upscale: int | None, video_size: tuple[int, int]
) -> None:
    path = write(tmp_path / "v.mp4", gradient(2, *frame_size), upscale=upscale)
    assert load_video(path).shape == (2, *video_size, 3)


def test_a_killed_writer_leaves_a_playable_file(tmp_path: Path) -> None:
    path = tmp_path / "killed.mp4"
    script = f"""
import os, numpy as np
from magi_world.io.media import VideoConfig, VideoWriter
writer = VideoWriter({str(path)!r}, VideoConfig(16.0, (32, 48)))
writer.write(np.random.default_rng(0).integers(0, 255, (64, 32, 48, 3), dtype=np.uint8))
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    assert 64 - 16 <= len(load_video(path)) <= 64


def test_a_missing_codec_is_replaced_and_said(tmp_path: Path) -> None:
    codecs = ("no_such_codec", "mpeg4")
    with pytest.warns(UserWarning, match="no_such_codec is not in this build of PyAV; using mpeg4"):
        path = write(tmp_path / "v.mp4", gradient(5), codecs=codecs, upscale=1)
    assert len(load_video(path)) == 5
    with pytest.raises(ValueError, match="none is in this build"):
        VideoWriter(tmp_path / "w.mp4", VideoConfig(16, (32, 48), codecs=("no_such_codec",)))


def test_the_writer_refuses_bad_frames_and_stays_usable(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "v.mp4", VideoConfig(16, (32, 48), upscale=1))
    for bad in (np.zeros((32, 48, 3)), np.zeros((2, 48, 32, 3), np.uint8), [[1, 2]], None):
        with pytest.raises(ValueError, match=r"they must be uint8 of shape \(32, 48, 3\)"):
            writer.write(bad)
    writer.write(gradient(1)[0])
    writer.close()
    writer.close()
    assert len(load_video(tmp_path / "v.mp4")) == 1
    with pytest.raises(ValueError, match="was closed"):
        writer.write(gradient(1))


@pytest.mark.parametrize(
    "options", [{"fps": 0}, {"frame_size": (0, 4)}, {"upscale": 0}, {"crf": 52}]
)
def test_video_options_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"VideoConfig.{next(iter(options))} is"):
        VideoConfig(**{"fps": 16, "frame_size": (4, 4), **options})
    with pytest.raises(ValueError, match=r"must end in \.mp4"):
        VideoWriter("v.avi", VideoConfig(16, (4, 4)))


@settings(max_examples=40, deadline=None)
@given(*[st.integers(1, 40)] * 4)
def test_fit_gives_the_size_and_the_middle(rows: int, columns: int, h: int, w: int) -> None:
    frames = np.full((2, rows, columns, 3), 77, np.uint8)
    fitted = fit(frames, (h, w))
    assert fitted.shape == (2, h, w, 3)
    assert fitted.dtype == np.uint8
    assert (fitted == 77).all()


def test_fit_cuts_evenly_on_both_sides() -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    assert fit(wide, (10, 10)).min() > 190
    assert fit(wide, (10, 30)) is wide
    np.testing.assert_array_equal(fit(wide, (20, 20)), fit(wide[:, ::-1], (20, 20))[:, ::-1])


@pytest.mark.parametrize(
    ("frames", "size"),
    [
        (np.zeros((4, 4, 3)), (2, 2)),
        (np.zeros((4, 4), np.uint8), (2, 2)),
        ("x", (2, 2)),
        (np.zeros((0, 4, 4, 3), np.uint8), (2, 2)),
        (np.zeros((4, 4, 3), np.uint8), (0, 2)),
    ],
)
def test_fit_refuses_what_is_no_picture(frames: object, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"(must|may) be"):
        fit(frames, size)


def test_enlarge_repeats_pixels() -> None:
    frame = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    large = media.enlarge(frame, 3)
    assert large.shape == (6, 6, 3)
    assert (large[:3, :3] == frame[0, 0]).all()


def test_a_picture_is_never_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(evil) run\nshowpage\n"
    (tmp_path / "room.png").write_bytes(program)
    run: list[object] = []
    monkeypatch.setattr(subprocess, "check_call", lambda *a, **k: run.append(a))
    with pytest.raises(ValueError, match=r"room\.png cannot be read: it is none of PNG, JPEG"):
        load_image(tmp_path / "room.png")
    assert run == []


@pytest.mark.parametrize("name", ["I", "I;16"])
def test_grey_of_sixteen_bits_stays_grey(name: str, tmp_path: Path) -> None:
    grey = (np.arange(256, dtype=np.uint16)[None] * 257).repeat(4, 0)
    picture = Image.fromarray(grey if name == "I;16" else grey.astype(np.int32))
    path = tmp_path / ("grey.png" if name == "I;16" else "grey.tiff")
    picture.save(path)
    np.testing.assert_array_equal(load_image(path)[0, :, 0], np.arange(256))


def test_pictures_of_fractions_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "f.tiff")
    with pytest.raises(ValueError, match="fractions"):
        load_image(tmp_path / "f.tiff")


@pytest.mark.parametrize("name", ["12:30.mp4", "file:a.mp4", "http:a.mp4", "concat:a|b.mp4"])
def test_names_with_colons_are_names(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path(name), gradient(4))
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert len(load_video(name)) == 4


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
        "#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        "ffconcat version 1.0\nfile real.mp4\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
    ],
)
def test_play_lists_are_no_films(text: str, tmp_path: Path) -> None:
    write(tmp_path / "real.mp4", gradient(4))
    (tmp_path / "a.mp4").write_text(text)
    with pytest.raises(ValueError, match=r"a\.mp4 cannot be read"):
        load_video(tmp_path / "a.mp4")


def still_for(path: Path, seconds: int) -> Path:
    """A film of two frames with a long pause between them."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height = stream.width = 32
        stream.pix_fmt = "yuv420p"
        for moment in (0, seconds):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = moment * 10, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_a_picture_that_stands_still_for_a_year_is_not_repeated_for_ever(tmp_path: Path) -> None:
    path = still_for(tmp_path / "still.mp4", 100_000)
    assert load_video(path, fps=16, last=5).shape == (5, 32, 32, 3)
    with pytest.raises(ValueError, match="stands still for"):
        load_video(path, fps=16)


def test_pipes_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    for load in (load_image, load_video):
        with pytest.raises(ValueError, match="no plain file"):
            load(tmp_path / "pipe.png")
        with pytest.raises(FileNotFoundError):
            load(tmp_path / "self.png")
