"""The window with SDL's dummy driver: events in, pictures and files out."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from magi_world.agents import RandomAgent
from magi_world.demos.play import PlayConfig, make_desk, play
from magi_world.demos.window import jobs
from magi_world.demos.window.app import App, AppConfig, window_size
from magi_world.demos.window.engine import Engine
from magi_world.demos.window.fork_view import panes
from magi_world.demos.window.panels import slot_cells, world_rows
from magi_world.demos.window.picture import fitted, scaled
from magi_world.demos.window.theme import Theme
from magi_world.demos.window.view import world_area
from magi_world.media import load_image, load_video
from magi_world.replaying import Verdict, verify
from magi_world.session import read_session
from magi_world.world import World
from tests.tiny import tiny_parts

pygame = pytest.importorskip("pygame")


def load(name: str) -> World:
    if name == "broken":
        raise ValueError("the weights of broken hold NaN")
    return quick_world()


def quick_world() -> World:
    """The tiny world at 80 frames a second, so that no test waits for a picture."""
    parts = tiny_parts()
    return World(replace(parts, spec=replace(parts.spec, fps=80)))


class Driver:
    """Presses keys in a window that nobody sees."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        config = PlayConfig(folder=folder, session=folder / "s.jsonl")
        self.desk = make_desk(
            Engine(load), {"random": RandomAgent()}, ["tiny", "other", "broken"], config
        )
        self.player = self.desk.player
        self.app = App(self.desk, AppConfig(size=(960, 720)))

    def opened(self) -> Driver:
        self.player.open(jobs.Open("tiny"))
        self.until(lambda: self.player.moment is not None and self.player.moment.index > 0)
        return self

    def frame(self) -> None:
        """One turn of the loop."""
        for event in pygame.event.get():
            self.app.handle(event)
        now = time.perf_counter()
        self.player.tick(now)
        self.app.draw(now)

    def until(self, condition: Callable[[], object], limit: float = 90.0) -> None:
        end = time.monotonic() + limit
        while not condition():
            texts = [n.text for n in self.player.notices.shown]
            assert time.monotonic() < end, f"it never happened; {texts}"
            self.frame()
            time.sleep(0.002)

    def key(self, key: int, text: str = "", mod: int = 0, hold: bool = False) -> None:
        pygame.event.post(pygame.Event(pygame.KEYDOWN, key=key, mod=mod, unicode=text))
        if text:
            pygame.event.post(pygame.Event(pygame.TEXTINPUT, text=text))
        if not hold:
            pygame.event.post(pygame.Event(pygame.KEYUP, key=key, mod=mod))
        self.frame()

    def type(self, text: str) -> None:
        for letter in text:
            self.key(ord(letter), letter)

    def click(self, place: tuple[int, int]) -> None:
        pygame.event.post(pygame.Event(pygame.MOUSEBUTTONDOWN, pos=place, button=1))
        self.frame()

    @property
    def screen(self) -> pygame.Rect:
        return self.app._surface.get_rect()

    @property
    def errors(self) -> list[str]:
        return [n.text for n in self.player.notices.shown if n.level == "error"]

    def pixels(self) -> np.ndarray:
        self.app._drawn = None
        self.frame()
        return pygame.surfarray.array3d(self.app._surface).swapaxes(0, 1)


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
    assert driver.desk.line.text == "turn r"
    driver.key(pygame.K_TAB)
    assert driver.desk.line.text == "turn right"
    driver.key(pygame.K_RETURN, "\r")
    driver.until(lambda: driver.player.moment.command == "turn right")
    assert driver.player.delay.last is not None
    driver.key(pygame.K_SLASH, "/")
    assert (driver.desk.line.open, driver.desk.line.text) == (True, "")


def test_arrows_and_letters_steer_only_while_nothing_is_typed(driver: Driver) -> None:
    driver.opened()
    driver.key(pygame.K_a, "a", hold=True)
    driver.until(lambda: driver.player.moment.command == "turn left")
    pygame.event.post(pygame.Event(pygame.KEYUP, key=pygame.K_a, mod=0))
    driver.until(lambda: driver.player.moment.command == "stand still")
    driver.key(pygame.K_t, "t")
    assert driver.desk.line.text == ""
    driver.type("wade")
    assert driver.desk.line.text == "wade"
    driver.key(pygame.K_LEFT)
    assert driver.desk.line.cursor == 3
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


def test_the_picture_is_the_frame_in_clean_squares(driver: Driver) -> None:
    driver.opened()
    driver.key(pygame.K_SPACE, " ")
    pixels = driver.pixels()
    frame = driver.player.playback.frame
    area = world_area(driver.screen, driver.desk).inflate(-16, -16)
    rect = fitted((48, 32), area)
    assert rect.width % 48 == 0
    factor = rect.width // 48
    centers = pixels[
        rect.top + factor // 2 : rect.bottom : factor, rect.left + factor // 2 : rect.right : factor
    ]
    assert np.array_equal(centers, frame)


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
    driver.key(pygame.K_p, "P", mod=pygame.KMOD_SHIFT)
    driver.key(pygame.K_r, "r")
    said = dict(n.text.split(": ") for n in driver.player.notices.shown if ": " in n.text)
    assert len(load_video(said["film saved"])) >= 16
    assert load_image(said["picture saved"]).shape == (256, 384, 3)
    assert load_image(next(driver.folder.glob("*-window.png"))).shape == (720, 960, 3)
    assert driver.desk.film is None


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
    assert driver.errors[0].startswith("/fly is unknown")
    assert not np.array_equal(driver.pixels(), before)
    driver.key(pygame.K_ESCAPE)
    assert driver.errors == []
    assert not driver.desk.quit


def test_the_picker_opens_worlds_and_shows_what_is_wrong_with_them(driver: Driver) -> None:
    driver.desk.show("worlds")
    driver.key(pygame.K_RETURN, "\r")
    driver.until(lambda: driver.player.moment is not None)
    assert driver.player.opened.source == "tiny"
    driver.key(pygame.K_m, "m")
    driver.click(world_rows(driver.screen, 3)[2].center)
    driver.until(lambda: driver.errors)
    assert "hold NaN" in driver.errors[0]
    assert driver.player.opened.source == "tiny"
    driver.key(pygame.K_m, "m")
    driver.key(pygame.K_2, "2")
    driver.until(lambda: driver.player.opened.source == "other")


def test_futures_can_be_clicked(driver: Driver) -> None:
    driver.opened()
    driver.key(pygame.K_f, "f")
    driver.until(lambda: driver.player.futures.complete)
    place = panes(world_area(driver.screen, driver.desk), 4)[2].center
    driver.click(place)
    assert driver.player.futures.selected == 2
    driver.click(place)
    driver.until(lambda: driver.player.futures is None)
    assert driver.player.moment.command == "walk forward"


def test_slots_with_keys_and_mouse(driver: Driver) -> None:
    driver.opened()
    driver.key(pygame.K_4, "4", mod=pygame.KMOD_LCTRL)
    driver.until(lambda: driver.player.slot_path(4).is_file())
    driver.key(pygame.K_l, "l")
    driver.pixels()
    driver.click(slot_cells(driver.screen)[3].center)
    driver.until(lambda: any("loaded slot 4" in n.text for n in driver.player.notices.shown))
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
    driver.desk.say(text)
    driver.until(lambda: seen(driver.player))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/seed", "needs a value"),
        ("/seed twelve", "no whole number"),
        ("/save 10", "1 .. 9"),
        ("/turn left", "unknown"),
    ],
)
def test_wrong_instructions(driver: Driver, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        driver.desk.say(text)


def test_escape_twice_quits_and_the_session_replays(driver: Driver) -> None:
    driver.opened()
    driver.key(pygame.K_c, "c")
    index = driver.player.moment.index
    driver.until(lambda: driver.player.moment.index >= index + 3)
    driver.key(pygame.K_ESCAPE)
    assert not driver.desk.quit
    driver.key(pygame.K_ESCAPE)
    assert driver.desk.quit
    driver.app.close()
    last = list(verify(read_session(driver.folder / "s.jsonl"), quick_world()))[-1]
    assert isinstance(last, Verdict)
    assert last.difference is None
    assert last.compared >= 4


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


def test_pixels_stay_crisp_when_enlarged_by_a_fraction() -> None:
    frame = np.zeros((4, 4, 3), np.uint8)
    frame[:, 2:] = 255
    pixels = pygame.surfarray.array3d(scaled(frame, (90, 90)))[:, 45, 0]
    assert np.count_nonzero((pixels > 8) & (pixels < 247)) <= 2
    smooth = pygame.surfarray.array3d(scaled(frame, (90, 90), smooth=True))[:, 45, 0]
    assert np.count_nonzero((smooth > 8) & (smooth < 247)) > 10


def test_a_scale_gives_a_window_in_which_the_world_has_it() -> None:
    width, height = window_size((64, 64), 8, hud=False)
    area = pygame.Rect(0, 44, width, height - 44 - 112).inflate(-16, -16)
    assert fitted((64, 64), area).size == (512, 512)


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
