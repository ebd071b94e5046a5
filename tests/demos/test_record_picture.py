"""What a film looks like: whole factors, forks side by side, captions, contact sheets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from magi_world.demos.outputs import Gif, Sheet, open_output
from magi_world.demos.render import Caption, Painter, PictureConfig, draw_caption
from magi_world.io.media import enlarge
from magi_world.session.events import Fork, Note, Reset, Step
from magi_world.world.chunk import Chunk
from magi_world.world.world import World
from tests.tiny import tiny_world


def test_a_sheet_spreads_its_pictures(tmp_path: Path) -> None:
    sheet = Sheet(tmp_path / "a.png", chunks=100)
    for i in range(100):
        sheet.write(np.full((2, 4, 4, 3), i, np.uint8))
    sheet.close()
    cells = np.asarray(Image.open(tmp_path / "a.png"))[::6, ::6, 0].ravel()
    assert len(cells) == 24
    assert (cells[0], cells[-1]) == (0, 99)
    assert set(np.diff(cells.astype(int))) <= {4, 5}


def test_outputs_without_frames_leave_no_file(tmp_path: Path) -> None:
    for output in (Gif(tmp_path / "a.gif", 16), Sheet(tmp_path / "a.png", 3)):
        output.close()
        output.close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="must end in"):
        open_output(tmp_path / "a.webm", (8, 8), 16, 1)


def chunk_of(world: World, rows: int = 1) -> Chunk:
    world.reset(seed=1)
    return world.step("turn left") if rows == 1 else world.fork_batch(rows).step("turn left")


def test_pixels_are_repeated_and_nothing_else() -> None:
    world = tiny_world()
    chunk = chunk_of(world)
    painter = Painter((32, 48), PictureConfig(upscale=3), ())
    assert np.array_equal(painter.paint(chunk), enlarge(chunk.frames[0], 3))


@pytest.mark.parametrize("futures", [1, 4])
def test_smooth_pictures_have_no_blocks_and_the_same_colours(futures: int) -> None:
    world = tiny_world()
    chunk = chunk_of(world, futures)
    sizes = PictureConfig(upscale=8), PictureConfig(upscale=8, smooth=True)
    blocks, smooth = (Painter((32, 48), config, ()).paint(chunk) for config in sizes)
    assert smooth.shape == blocks.shape
    inner = np.s_[:, 16:48, 16:48] if futures == 4 else np.s_[:]
    steps = [np.abs(np.diff(p[inner].astype(int), axis=2)) for p in (blocks, smooth)]
    assert (steps[0] == 0).mean() > 0.7, "most neighbours are one pixel repeated"
    assert steps[1].max() < steps[0].max(), "an edge is spread"
    assert (steps[1] == 0).mean() < (steps[0] == 0).mean()
    near = np.abs(smooth[inner].mean((1, 2)) - blocks[inner].mean((1, 2)))
    assert near.max() < 4.0


def test_notes_follow_one_another_and_go_away() -> None:
    """Chunks of 8 frames at 8 frames a second: one second each."""
    world = tiny_world()
    chunk = chunk_of(world)
    config = PictureConfig(upscale=12, captions=True)
    painter = Painter((32, 48), config, (), fps=8)
    bare = painter.paint(chunk)
    painter.remark(Note("a title"))
    painter.remark(Note("everything is generated"))
    shown = [painter.paint(chunk) for _ in range(8)]
    names = ["?"] * len(shown)
    for i, frames in enumerate(shown):
        same = [j for j in range(i) if np.array_equal(frames, shown[j])]
        names[i] = names[same[0]] if same else chr(ord("a") + i)
        if np.array_equal(frames[:, :40], bare[:, :40]):
            names[i] = "-"
    # The title for two chunks, as the next note waits; that one for four; then nothing.
    assert "".join(names) == "aacccc--"


def test_a_fork_is_shown_side_by_side_at_the_same_size() -> None:
    world = tiny_world()
    chunk = chunk_of(world, 4)
    painter = Painter((32, 48), PictureConfig(upscale=4), ())
    picture = painter.paint(chunk)
    assert picture.shape == (8, 128, 192, 3)
    for i, future in enumerate(chunk.frames):
        y, x = i // 2 * 64, i % 2 * 96
        inner = np.s_[:, y + 1 : y + 63, x + 1 : x + 95]
        assert np.array_equal(picture[inner], enlarge(future, 2)[:, 1:63, 1:95])
    assert not picture[:, 63:65].any(), "a line between them"


@pytest.mark.parametrize(
    ("height", "futures", "factor"), [(64, 4, 6), (64, 9, 6), (32, 4, 12), (64, 16, 8), (480, 4, 1)]
)
def test_the_factor_divides_among_the_futures(height: int, futures: int, factor: int) -> None:
    painter = Painter((height, height), PictureConfig(), (Reset((0,)), Fork(futures), Step(1)))
    assert painter.factor == factor


def test_large_worlds_are_shrunk_in_a_fork() -> None:
    world = tiny_world()
    chunk = chunk_of(world, 4)
    picture = Painter((32, 48), PictureConfig(upscale=1), ()).paint(chunk)
    first = chunk.frames[0, 0].reshape(16, 2, 24, 2, 3).mean((1, 3))
    assert np.abs(picture[0, :15, :23] - first[:15, :23]).max() <= 1


def test_captions_change_only_their_bands() -> None:
    frames = np.full((2, 240, 320, 3), 100, np.uint8)
    shown = draw_caption(frames, Caption("turn left", "12", "a note"))
    assert np.array_equal(shown[0], shown[1])
    band = (shown[0] != 100).any((1, 2)).nonzero()[0]
    assert band.min() == 0
    assert band.max() == 239
    assert np.array_equal(shown[0, 30:210], frames[0, 30:210])
    assert shown.max() > 240, "the letters are bright"
    fresh = draw_caption(frames, Caption("turn left", fresh=True))
    assert (fresh[..., 0].astype(int) - fresh[..., 2]).max() > 80, "a new command is coloured"


def test_a_long_caption_is_cut() -> None:
    frames = np.zeros((1, 64, 96, 3), np.uint8)
    assert draw_caption(frames, Caption("word " * 50, "123")).max() > 200
