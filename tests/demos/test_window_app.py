"""The window with SDL's dummy driver: events in, pictures and files out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pygame
import pytest

from magi_world.demos.window.theme import fitted, scaled
from magi_world.demos.window.view import layout_of
from magi_world.io.media import load_image, load_video
from magi_world.language import Step
from magi_world.session.player import Verdict, verify
from magi_world.session.session import read_session
from magi_world.world.spec import Command
from magi_world.world.world import World
from tests.demos.driver import Driver, quick_world


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    made = Driver(tmp_path)
    yield made
    made.app.close()


def test_typing_a_command_steers_the_world_and_never_stops_it(driver: Driver) -> None:
    driver.opened()
    driver.key(pygame.K_RETURN, "\r")
    driver.type("turn r")
    index = driver.player.moment.index
    driver.until(lambda: driver.player.moment.index >= index + 2)
    assert driver.state.line.text == "turn r"
    driver.key(pygame.K_TAB)
    assert driver.state.line.text == "turn right"
    driver.key(pygame.K_RETURN, "\r")
    driver.until(lambda: driver.player.moment.command == "turn right")
    assert driver.player.delay.last is not None
    driver.key(pygame.K_SLASH, "/")
    assert (driver.state.line.open, driver.state.line.text) == (True, "")


def test_arrows_and_letters_steer_only_while_nothing_is_typed(driver: Driver) -> None:
    driver.opened()
    driver.key(pygame.K_a, "a", hold=True)
    driver.until(lambda: driver.player.moment.command == "turn left")
    pygame.event.post(pygame.Event(pygame.KEYUP, key=pygame.K_a, mod=0))
    driver.until(lambda: driver.player.moment.command == "stand still")
    driver.key(pygame.K_t, "t")
    assert driver.state.line.text == ""
    driver.type("wade")
    assert driver.state.line.text == "wade"
    driver.key(pygame.K_LEFT)
    assert driver.state.line.cursor == 3
    driver.key(pygame.K_ESCAPE)
    driver.frame()
    assert driver.player.command == "stand still"


def test_a_held_key_does_not_repeat_a_shortcut(driver: Driver) -> None:
    driver.opened()
    driver.key(pygame.K_SPACE, " ", hold=True)
    driver.key(pygame.K_SPACE, " ", hold=True)
    assert driver.player.playback.paused
    driver.key(pygame.K_SPACE, " ")
    driver.key(pygame.K_SPACE, " ")
    assert not driver.player.playback.paused


def test_the_picture_is_smooth_or_the_frame_in_clean_squares(driver: Driver) -> None:
    driver.opened()
    driver.state.tips.close()
    driver.until(lambda: not driver.player.notices.shown)
    driver.key(pygame.K_SPACE, " ")
    frame, area = driver.player.playback.frame, layout_of(driver.screen, driver.state).picture
    rect = fitted((48, 32), area)
    assert rect.width == area.width or rect.height == area.height
    shown = pygame.surfarray.array3d(scaled(frame, rect.size)).swapaxes(0, 1)
    inside = (slice(rect.top, rect.bottom), slice(rect.left, rect.right))
    # The mark of the pause is in the corner.
    assert np.array_equal(driver.pixels()[inside][80:], shown[80:])
    driver.key(pygame.K_v, "v")
    pixels, rect = driver.pixels(), fitted((48, 32), area, whole=True)
    assert rect.width % 48 == 0
    factor = rect.width // 48
    centers = pixels[
        rect.top + factor // 2 : rect.bottom : factor, rect.left + factor // 2 : rect.right : factor
    ]
    assert np.array_equal(centers[4:], frame[4:])


@pytest.mark.parametrize("size", [(300, 250), (640, 480), (1500, 500), (1920, 1080)])
def test_the_window_can_have_any_size(driver: Driver, size: tuple[int, int]) -> None:
    driver.opened()
    pygame.display.set_mode(size, pygame.RESIZABLE)
    for key in (pygame.K_f, pygame.K_F1, pygame.K_l, pygame.K_m):
        driver.key(key)
        assert driver.pixels().shape == (size[1], size[0], 3)


def test_files_are_written_and_their_names_are_shown(driver: Driver) -> None:
    driver.opened()
    driver.key(pygame.K_r, "r")
    index = driver.player.moment.index
    driver.until(lambda: driver.player.moment.index >= index + 2)
    driver.key(pygame.K_p, "p")
    said = dict(n.text.split(": ") for n in driver.player.notices.shown if ": " in n.text)
    driver.key(pygame.K_p, "P", mod=pygame.KMOD_SHIFT)
    driver.key(pygame.K_r, "r")
    said |= dict(n.text.split(": ") for n in driver.player.notices.shown if ": " in n.text)
    assert len(load_video(said["film saved"])) >= 16
    assert load_image(said["picture saved"]).shape == (256, 384, 3)
    assert load_image(next(driver.folder.glob("*-window.png"))).shape == (800, 1280, 3)
    assert driver.state.film is None


def test_a_picture_dropped_on_the_window_begins_the_world(driver: Driver, tmp_path: Path) -> None:
    from PIL import Image

    driver.opened()
    Image.new("RGB", (64, 64), (10, 20, 220)).save(tmp_path / "blue.png")
    pygame.event.post(pygame.Event(pygame.DROPFILE, file=str(tmp_path / "blue.png")))
    driver.until(lambda: driver.player.start.image is not None)
    assert driver.player.moment.frames[0, 0, 0].tolist() == [10, 20, 220]
    (tmp_path / "text.txt").write_text("no picture")
    pygame.event.post(pygame.Event(pygame.DROPFILE, file=str(tmp_path / "text.txt")))
    driver.until(lambda: driver.errors)
    assert "text.txt" in driver.errors[0]
    assert driver.player.moment.frames[0, 0, 0].tolist() == [10, 20, 220]


def test_errors_appear_in_the_window_until_escape(driver: Driver) -> None:
    driver.opened()
    driver.key(pygame.K_SPACE, " ")
    driver.until(lambda: not driver.player.notices.shown)
    before = driver.pixels()
    driver.key(pygame.K_RETURN, "\r")
    driver.type("/fly")
    driver.key(pygame.K_RETURN, "\r")
    assert driver.errors[0].startswith("/fly is not known")
    assert not np.array_equal(driver.pixels(), before)
    driver.key(pygame.K_ESCAPE)
    assert driver.errors == []
    assert not driver.state.quit


def test_the_picker_opens_worlds_and_shows_what_is_wrong_with_them(driver: Driver) -> None:
    driver.state.show("worlds")
    driver.key(pygame.K_RETURN, "\r")
    driver.until(lambda: driver.player.moment is not None)
    assert driver.player.opened.source == "tiny"
    driver.key(pygame.K_m, "m")
    driver.click("world 2")
    driver.until(lambda: driver.errors)
    assert "hold NaN" in driver.errors[0]
    assert driver.player.opened.source == "tiny"
    driver.key(pygame.K_m, "m")
    driver.key(pygame.K_2, "2")
    driver.until(lambda: driver.player.opened.source == "other")


def test_futures_can_be_clicked(driver: Driver) -> None:
    driver.opened()
    driver.click("what if")
    driver.until(lambda: driver.player.futures.complete)
    driver.click("future 2")
    assert driver.player.futures.selected == 2
    driver.click("future 2")
    driver.until(lambda: driver.player.futures is None)
    assert driver.player.moment.command == "walk forward"


def test_the_slider_is_dragged_and_the_wheel_turns_time(driver: Driver) -> None:
    driver.opened()
    driver.until(lambda: driver.player.moment.index >= 8)
    driver.pixels()
    slider = driver.app.spots.named("timeline").rect
    last = driver.player.playback.timeline.position
    driver.press((slider.right - 1, slider.centery))
    driver.move(slider.center)
    assert driver.player.moment.index == pytest.approx(last / 2, abs=1)
    driver.move((slider.left - 50, slider.top - 90))
    assert driver.player.moment.index == 0
    driver.let_go(slider.center)
    driver.move(slider.midright)
    assert driver.player.moment.index == 0
    assert not driver.state.line.open
    pygame.event.post(pygame.Event(pygame.MOUSEWHEEL, y=-2, x=0))
    driver.frame()
    assert driver.player.moment.index == 2


def test_everything_can_be_clicked(driver: Driver) -> None:
    driver.opened()
    driver.click("command turn right")
    driver.until(lambda: driver.player.moment.command == "turn right")
    driver.click("pause")
    assert driver.player.playback.paused
    driver.click("world")
    assert not driver.player.playback.paused
    driver.click("hand over")
    assert driver.player.controllers.name == "random"
    driver.click("line")
    driver.type("walk")
    driver.click("completion 0")
    driver.until(lambda: driver.player.moment.command == "walk forward")
    assert driver.player.controllers.name == "human"
    driver.click("help")
    assert driver.state.overlay == "help"
    driver.click("close")
    driver.click("slots")
    driver.click("slot 2")
    driver.until(lambda: driver.player.slots.path(2).is_file())
    driver.click("figures")
    assert driver.state.hud
    driver.click("back")
    assert driver.player.playback.paused


def test_three_things_to_try_go_away_when_they_were_tried(driver: Driver) -> None:
    driver.opened()
    assert {"tip steer", "tip type", "tip fork"} <= driver.app.spots.names
    driver.key(pygame.K_UP)
    driver.click("tip type")
    driver.until(lambda: driver.player.moment.command == "turn left")
    assert driver.state.tips.tried == {"steer", "type"}
    driver.click("tip fork")
    driver.key(pygame.K_ESCAPE)
    driver.pixels()
    assert not any(name.startswith("tip") for name in driver.app.spots.names)


def test_a_goal_stays_in_force_after_a_click_or_a_number(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    goals = (Command("go to the cave", keys=("1",)), Command("make it night"))
    parts = quick_world().parts
    spec = replace(parts.spec, commands=(*parts.spec.commands, *goals))
    monkeypatch.setattr("tests.demos.driver.quick_world", lambda: World(replace(parts, spec=spec)))
    driver.opened()
    assert not driver.player.steering.keymap.lasting("turn left")
    driver.key(pygame.K_1, "1")
    assert driver.player.steering.command == "go to the cave"
    index = driver.player.moment.index
    driver.until(lambda: driver.player.moment.index >= index + 3)
    assert driver.player.moment.command == "go to the cave"
    driver.click("command make it night")
    driver.until(lambda: driver.player.moment.command == "make it night")


def test_what_waits_is_shown_as_chips_that_can_be_changed_and_dropped(driver: Driver) -> None:
    driver.opened()
    driver.key(pygame.K_SPACE, " ")
    steps = [Step("turn left", 2), Step("turn right"), Step("walk forward", None)]
    driver.player.enqueue(steps)
    driver.click("drop 1")
    assert [q.command for q in driver.player.steering.queue] == ["turn left", "walk forward"]
    driver.click("chip 0")
    assert driver.state.line.text == "turn left for 2 chunks"
    assert driver.state.changing == 0


def test_slots_with_keys_and_mouse(driver: Driver) -> None:
    driver.opened()
    driver.key(pygame.K_4, "4", mod=pygame.KMOD_LCTRL)
    driver.until(lambda: driver.player.slots.path(4).is_file())
    driver.key(pygame.K_l, "l")
    driver.pixels()
    driver.click("slot 4")
    driver.until(lambda: any("slot 4 is loaded" in n.text for n in driver.player.notices.shown))
    driver.key(pygame.K_5, "5")
    assert driver.errors == []
    driver.key(pygame.K_l, "l")
    driver.key(pygame.K_5, "5")
    assert "slot 5 is empty" in driver.errors[0]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("/seed 12", lambda p: p.moment.seed == 12),
        ("/scene a dark hall", lambda p: p.moment.scene == "a dark hall"),
        ("/start 1", lambda p: p.start.start == 1),
        ("/start text", lambda p: p.start.start == "text"),
        ("/world other", lambda p: p.opened.source == "other"),
    ],
)
def test_instructions(driver: Driver, text: str, seen: Callable[..., bool]) -> None:
    driver.opened()
    driver.state.say(text)
    driver.until(lambda: seen(driver.player))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/seed", "needs a value"),
        ("/seed twelve", "needs a whole number"),
        ("/save 10", "1 .. 9"),
        ("/turn left", "not known"),
    ],
)
def test_wrong_instructions(driver: Driver, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        driver.state.say(text)


def test_escape_twice_quits_and_the_session_replays(driver: Driver) -> None:
    driver.opened()
    driver.key(pygame.K_c, "c")
    index = driver.player.moment.index
    driver.until(lambda: driver.player.moment.index >= index + 3)
    driver.key(pygame.K_ESCAPE)
    assert not driver.state.quit
    driver.key(pygame.K_ESCAPE)
    assert driver.state.quit
    driver.app.close()
    last = list(verify(read_session(driver.folder / "s.jsonl"), quick_world()))[-1]
    assert isinstance(last, Verdict)
    assert last.difference is None
    assert last.compared >= 4
