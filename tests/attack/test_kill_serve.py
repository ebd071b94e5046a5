"""`serve` killed (SIGKILL) while visitors play: what a page was told is on disk, and readable."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from magi_world import Snapshot, load_world
from magi_world.session.events import Reset, Step
from magi_world.session.player import replay
from magi_world.session.session import Session, read_session
from tests.killing import forked, kill
from tests.tiny import COMMANDS, write_tiny_package

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("websockets")

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from magi_world.demos.server.app import serve
from magi_world.demos.server.config import Limits, ServeConfig
from tests.demos.server_stage import Page

VISITORS = 3


@contextmanager
def server(package: Path, folder: Path) -> Iterator[tuple[str, int]]:
    """A server in a fork: its address and its process, which is killed in the end."""
    reading, writing = os.pipe()
    config = ServeConfig(port=0, folder=folder, batch=4, limits=Limits(messages=1000.0))

    def job() -> None:
        def say(text: str) -> None:
            os.write(writing, f"{text}\n".encode())

        serve((str(package),), lambda name, n: load_world(name, n, threads=None), config, 1, say)

    child = forked(job)
    os.close(writing)
    try:
        with os.fdopen(reading) as said:
            address = next(line.split("//")[1].strip(" /\n") for line in said if "//" in line)
        yield f"ws://{address}", child
    finally:
        kill("serve", child)


class Played:
    """What one visitor was told: chunk -> command of its world, and slot -> the chunk saved."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chunks: dict[int, str] = {}
        self.slots: dict[int, int] = {}
        self.wrong: Exception | None = None

    def play(self, url: str) -> None:
        """Until the server is gone."""
        chance, name = random.Random(self.seed), f"{self.seed:032x}"
        try:
            with (
                suppress(ConnectionClosed, OSError, EOFError),
                connect(f"{url}/play?visit={name}&key={name}", max_size=None) as socket,
            ):
                self._go_on(Page(socket), chance)
        except Exception as error:
            self.wrong = error

    def _go_on(self, page: Page, chance: random.Random) -> None:
        page.say("reset", seed=self.seed, start=None, scene=None)
        while True:
            if (got := page.read(60)) is None:
                continue
            assert got["type"] != "refused", got
            if got["type"] == "chunk" and got["seed"] == self.seed:
                self.chunks[got["index"]] = got["command"]
                page.say("say", text=chance.choice(COMMANDS))
                if chance.random() < 0.5:
                    page.say("save", slot=chance.randint(1, 3))
            elif got["type"] == "note" and got["text"].startswith("saved in slot"):
                self.slots[int(got["text"].split()[-1])] = max(self.chunks)


def after_reset(session: Session, seed: int) -> dict[int, str] | None:
    """Chunk -> command, of the world with this seed; None where it is another's session."""
    found: dict[int, str] | None = None
    for event in session.events:
        if isinstance(event, Reset) and event.seeds == (seed,):
            found = {}
        elif isinstance(event, Step) and found is not None:
            assert isinstance(event.chunk, int)
            assert isinstance(event.say, str)
            found[event.chunk] = event.say
    return found


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_what_a_page_was_told_is_not_lost(tmp_path: Path, kills: int) -> None:
    package, folder = write_tiny_package(tmp_path / "tiny"), tmp_path / "served"
    chance, told = random.Random(11), 0
    for number in range(kills):
        played = [Played(1000 * number + visitor) for visitor in range(VISITORS)]
        with server(package, folder) as (url, _):
            threads = [threading.Thread(target=one.play, args=(url,)) for one in played]
            for thread in threads:
                thread.start()
            end = time.monotonic() + 60
            while not all(one.chunks for one in played) and time.monotonic() < end:
                time.sleep(0.01)
            time.sleep(chance.uniform(0.0, 1.5))
        for thread in threads:
            thread.join(60)
        sessions = [read_session(path) for path in (folder / "sessions").glob("*.jsonl")]
        for one in played:
            assert one.wrong is None, one.wrong
            (kept,) = [k for s in sessions if (k := after_reset(s, one.seed)) is not None]
            one.chunks.pop(0, None)  # that of the reset
            assert {index: kept.get(index) for index in one.chunks} == one.chunks
            told += len(one.chunks)
            (slots,) = (folder / "slots" / f"{one.seed:032x}").glob("*") if one.slots else [folder]
            for slot, chunk in one.slots.items():
                state = Snapshot.load(slots / f"slot-{slot}.safetensors")
                assert state.prompts[0].steps >= chunk - 1
        for path in folder.rglob("slot-*.safetensors"):
            Snapshot.load(path)
            assert path.with_suffix(".picture").is_file(), "a slot without its picture"
    assert told > 2 * kills
    newest = max(sessions, key=lambda s: len(s.events))
    *_, chunk = replay(newest, load_world(package, threads=None))
    assert chunk.index[0] > 0
