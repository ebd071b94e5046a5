"""The page in a real browser: types, sees the picture change, forks, rewinds, downloads."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("selenium.webdriver")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from selenium import webdriver

from magi_world.io.media import load_video
from magi_world.session.session import read_session
from tests.demos.server_stage import Running, running

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BROWSER or not DRIVER, reason="needs chromium and chromium-driver"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("served")) as made:
        yield made


class Browser:
    """Headless Chromium on the page; what takes a while is waited for."""

    def __init__(self, url: str, folder: Path, size: tuple[int, int], phone: bool = False) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = BROWSER
        for option in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
            options.add_argument(option)
        # Without a GPU a shader would take all of the processor; the page must do without, too.
        options.add_argument("--disable-3d-apis")
        options.add_argument("--force-prefers-reduced-motion")
        options.add_argument(f"--window-size={size[0]},{size[1]}")
        preferences = {
            "download.default_directory": str(folder),
            # Clicks of a script are no gesture, so the second download would be asked about.
            "profile.default_content_setting_values.automatic_downloads": 1,
        }
        options.add_experimental_option("prefs", preferences)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.folder = folder
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        if phone:
            form = {"width": size[0], "height": size[1], "deviceScaleFactor": 2, "mobile": True}
            self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", form)
            self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
        self.driver.get(url)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def seconds(self) -> float:
        """What the clock shows."""
        minutes, _, seconds = self.text("#clock").partition(":")
        return 60 * int(minutes) + float(seconds)

    def click(self, selector: str) -> None:
        # In one go: between finding and clicking the page may have drawn it anew.
        self.driver.execute_script("document.querySelector(arguments[0]).click()", selector)

    def type(self, words: str) -> None:
        self.find("#text").send_keys(words + "\n")

    def wait(self, true: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if result := true():
                return result
            time.sleep(0.1)
        raise AssertionError(f"{what}: it did not come; {self.complaints()}")

    def picture(self) -> np.ndarray:
        script = """const c = document.getElementById("picture");
            const s = document.createElement("canvas");
            s.width = s.height = 16; const p = s.getContext("2d"); p.drawImage(c, 0, 0, 16, 16);
            return Array.from(p.getImageData(0, 0, 16, 16).data)"""
        return np.array(self.driver.execute_script(script)).reshape(16, 16, 4)[..., :3]

    def complaints(self) -> list[str]:
        log = self.driver.get_log("browser")
        return [entry["message"] for entry in log if entry["level"] == "SEVERE"]

    def download(self, button: str, ending: str) -> Path:
        before = set(self.folder.glob(f"*{ending}"))
        self.click("#take")
        self.click(button)

        def found() -> Path | None:
            new = set(self.folder.glob(f"*{ending}")) - before
            return next(iter(new), None)

        return self.wait(found, f"a download of {ending}")


@pytest.fixture
def desktop(server: Running, tmp_path: Path) -> Iterator[Browser]:
    browser = Browser(server.http, tmp_path, (1280, 900))
    yield browser
    browser.driver.quit()


@pytest.fixture
def phone(server: Running, tmp_path: Path) -> Iterator[Browser]:
    browser = Browser(server.http, tmp_path, (390, 844), phone=True)
    yield browser
    browser.driver.quit()


def test_a_visit(desktop: Browser, tmp_path: Path) -> None:
    page = desktop
    page.wait(lambda: page.text("#now") == "stand still", "the world")
    page.wait(lambda: page.picture().any(), "a picture")
    assert "Tell it what to do" in page.text("#welcome")
    first = page.picture()
    # Words: completed, understood, obeyed.
    page.find("#text").send_keys("turn l")
    assert page.find("#ghost").get_property("value") == "turn left"
    page.find("#text").clear()
    page.type("turn lfet 3 times, then walk forward")
    page.wait(lambda: page.text("#now") == "turn left", "turn left")
    assert "turn left" in page.text("#heard")
    assert not page.find("#welcome").is_displayed()
    page.wait(lambda: page.text("#now") == "walk forward", "walk forward")
    page.wait(lambda: np.abs(page.picture() - first).mean() > 2, "another picture")
    page.type("open the fridge")
    page.wait(lambda: "this world has no" in page.text("#heard"), "an answer")
    # Pause, rewind on the film strip, go on from there.
    page.click("#pause")
    page.wait(lambda: page.find("#still").is_displayed(), "the pause")
    was = page.seconds()
    page.driver.execute_script(
        "const s = arguments[0]; s.value = 1; s.dispatchEvent(new Event('input'))",
        page.find("#slider"),
    )
    back = page.wait(lambda: page.seconds() < was and page.seconds(), "an earlier chunk")
    page.click("#step")
    page.wait(lambda: page.seconds() == pytest.approx(back + 0.5, abs=0.06), "the next chunk")
    # Four futures, one is kept.
    page.click("#whatif")
    page.wait(lambda: len(page.driver.find_elements("css selector", ".future")) == 4, "futures")
    keep = ".future:nth-child(3) .keep"
    page.wait(lambda: page.find(keep).is_enabled(), "a future that moves")
    says = page.find(".future:nth-child(3) input").get_property("value")
    page.click(keep)
    page.wait(lambda: page.find("#frame").is_displayed(), "the picture again")
    page.wait(lambda: page.text("#now") == says, "the future that was kept")
    # Save, go on, come back.
    saved = page.text("#clock")
    page.click("#places")
    page.click(".slot button")
    page.wait(lambda: page.driver.find_elements("css selector", ".slot img"), "a saved moment")
    page.driver.execute_script("document.querySelector('#places-dialog').close()")
    page.click("#pause")
    page.wait(lambda: page.text("#clock") != saved, "that it goes on")
    page.click("#places")
    page.click(".slot:first-child button:last-child")
    page.wait(lambda: page.text("#clock") == saved, "the saved moment")
    # Take it home.
    film = page.download("#take-film", ".mp4")
    assert len(load_video(film)) > 8
    session = page.download("#take-session", ".jsonl")
    events = [json.loads(line).get("event") for line in session.read_text().splitlines()]
    assert {"reset", "step", "rewind", "fork", "keep", "save", "load", "note"} <= set(events)
    assert len(read_session(session).events) == len(events) - 1
    # Keys, figures, a new dream.
    page.click("#pause")
    page.find("body").click()
    page.driver.switch_to.active_element.send_keys("h")
    page.wait(lambda: page.find("#figures").is_displayed(), "the figures")
    page.click("#again")
    page.click("#again-random")
    page.wait(lambda: page.text("#clock").startswith("0:0"), "a new dream")
    assert page.complaints() == []
    page.driver.save_screenshot(str(tmp_path / "desktop.png"))


def test_it_fits_a_phone(phone: Browser, tmp_path: Path) -> None:
    page = phone
    page.wait(lambda: page.picture().any(), "a picture")
    size = page.driver.execute_script(
        "return [document.documentElement.scrollWidth, innerWidth, innerHeight]"
    )
    assert size[0] <= size[1] == 390
    for part in ("#picture", "#text", "#send", "#pause", "#whatif", "#pad button"):
        box = page.find(part).rect
        assert box["x"] >= 0, part
        assert box["x"] + box["width"] <= 390, part
        assert box["y"] + box["height"] <= size[2], part
        assert min(box["width"], box["height"]) >= 36, part
    assert page.find("#picture").rect["width"] > 300
    page.driver.execute_script(
        "arguments[0].dispatchEvent(new PointerEvent('pointerdown', {pointerId: 1}))",
        page.find("#pad button[data-key=left]"),
    )
    page.click("#commands button[data-command='turn right']")
    page.wait(lambda: "turn" in page.text("#now"), "that it turns")
    page.driver.save_screenshot(str(tmp_path / "phone.png"))
    with Image.open(tmp_path / "phone.png") as shot:
        assert shot.width == 780
