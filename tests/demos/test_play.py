"""`play` as a whole, and the small parts that draw."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pygame
import pytest

from magi_world.demos.play import PlayConfig, play
from magi_world.demos.window.app import window_size
from magi_world.demos.window.theme import Theme, fitted, scaled
from magi_world.demos.window.view import arrange
from magi_world.io.media import load_video
from magi_world.session.session import read_session
from magi_world.world.world import World
from tests.demos.driver import load, quick_world


def test_play_runs_from_a_world_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    (tmp_path / "a.yaml").write_text("world: tiny\nscript:\n  - {say: turn left, for: 9}\n")
    config = PlayConfig(
        folder=tmp_path,
        session=tmp_path / "s.jsonl",
        record=tmp_path / "film.mp4",
        script=tmp_path / "a.yaml",
        scale=6,
    )
    step = World.step

    def step_and_end(self: World, *arguments: object) -> object:
        chunk = step(self, *arguments)  # type: ignore[arg-type]
        if chunk.index[0] == 4:
            pygame.event.post(pygame.Event(pygame.QUIT))
        return chunk

    monkeypatch.setattr(World, "step", step_and_end)
    assert play(quick_world(), config) == 0
    monkeypatch.undo()
    assert len(load_video(tmp_path / "film.mp4")) >= 16
    session = read_session(tmp_path / "s.jsonl")
    assert "turn left" in [getattr(event, "say", None) for event in session.events]


def test_a_window_closes_when_its_time_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    config = PlayConfig(folder=tmp_path, keep_session=False, max_seconds=0.3)
    begun = time.monotonic()
    assert play(None, config, load=load, worlds=["tiny", "other"]) == 0
    assert time.monotonic() - begun >= 0.3
    assert list(tmp_path.iterdir()) == []


def test_without_a_display_play_says_what_to_do_instead(tmp_path: Path) -> None:
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER", "SDL_VIDEO_DRIVER")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    code = (
        "import sys; from magi_world.demos.play import play; sys.exit(play('magi-1-4.5b-distill'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    assert "needs a display" in done.stderr
    assert "magi-world record" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_opened_is_said_before_there_is_a_window(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no world 'nowhere'"):
        play("nowhere")
    with pytest.raises(FileNotFoundError, match=r"missing\.png"):
        play("tiny", PlayConfig(image=tmp_path / "missing.png"), load=load)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": 0}, "scale is 0"),
        ({"record": Path("a.avi")}, r"\.mp4"),
        ({"session": Path(__file__)}, "never overwritten"),
        ({"max_seconds": 0}, "max_seconds is 0"),
        ({"size": (10, 10)}, "size is"),
    ],
)
def test_wrong_options(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PlayConfig(**options)  # type: ignore[arg-type]


def test_pictures_are_smooth_or_their_pixels_stay_crisp() -> None:
    frame = np.zeros((4, 4, 3), np.uint8)
    frame[:, 2:] = 255
    pixels = pygame.surfarray.array3d(scaled(frame, (90, 90), smooth=False))[:, 45, 0]
    assert set(pixels) == {0, 255}
    smooth = pygame.surfarray.array3d(scaled(frame, (90, 90)))[:, 45, 0]
    assert np.count_nonzero((smooth > 8) & (smooth < 247)) > 10


def test_a_scale_gives_a_window_in_which_the_world_has_it() -> None:
    for scale in (8, 12):
        screen = pygame.Rect((0, 0), window_size((64, 64), scale))
        area = arrange(screen, (64, 64)).picture
        assert fitted((64, 64), area).size == (64 * scale, 64 * scale)


@pytest.mark.parametrize("frame_size", [(64, 64), (96, 160), (480, 832), (256, 128)])
@pytest.mark.parametrize("size", [(1280, 800), (1920, 1080), (960, 720), (700, 900)])
def test_the_parts_of_the_window_never_overlap(
    size: tuple[int, int], frame_size: tuple[int, int]
) -> None:
    screen = pygame.Rect((0, 0), size)
    layout = arrange(screen, frame_size)
    parts = [layout.picture, layout.header, layout.commands, layout.timeline, layout.transport]
    parts = [part for part in [*parts, layout.status, layout.line] if part.width and part.height]
    assert all(screen.contains(part) for part in parts)
    assert all(part.collidelist(parts[i + 1 :]) == -1 for i, part in enumerate(parts))


def test_at_1280_by_800_a_square_world_fills_the_height() -> None:
    layout = arrange(pygame.Rect(0, 0, 1280, 800), (64, 64))
    assert fitted((64, 64), layout.picture).size == (800, 800)


def test_text_is_shortened_and_wrapped_to_its_room() -> None:
    pygame.font.init()
    letters = Theme()
    words = "walk forward through the long dark corridor"
    assert letters.width(letters.clipped(words, 120)) <= 120
    assert letters.clipped(words, 2000) == words
    lines = letters.wrapped(words, 120)
    assert " ".join(lines) == words
    assert all(letters.width(line) <= 120 for line in lines)
    assert letters.render("дверь 门").get_width() > 0
