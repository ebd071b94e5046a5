"""Load on `magi-world serve`: frames a second, words to picture, memory; and a long soak.

    python benchmarks/serve.py                           1, 4 and 16 visitors, 40 s each
    python benchmarks/serve.py --soak --seconds 600      16 visitors who come and go, 10 minutes

The server runs in a process of its own; visitors are WebSocket clients that only count. Every
visitor checks that the seed and the commands of what it is told are its own; and of some, pictures
of their first chunks are kept, and compared in the end with what the world dreams here, alone, from
that seed under those commands: nobody saw another's world.

A JSON line of all so far every 20 seconds, on stderr how far it is; the last line is the result.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import common
import numpy as np
from PIL import Image
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

import magi_world
from magi_world.demos.server.pictures import HEADER
from magi_world.loading import DEFAULT_WORLD

EVERY = 2.5  # seconds between two commands of a visitor
TELL = 20.0  # seconds between two lines
KEPT = 4  # chunks of a visit of which a picture is kept; longer dreams may drift apart by rounding
COMPARED = 12  # visits
# Mean difference of pictures, of 255, up to which they show the same. JPEG makes 1; pictures of the
# courtyard from other seeds under the same command are 60 apart (median of 66), 3 of 66 below 12.
ALIKE = 5.0


@dataclass
class Album:
    """The first chunks of one visit: chunk -> command, and (chunk, frame) -> the picture's file."""

    seed: int
    commands: dict[int, str] = field(default_factory=dict)
    pictures: dict[tuple[int, int], bytes] = field(default_factory=dict)


@dataclass
class Seen:
    """What one visitor counted."""

    frames: int = 0
    dropped: int = 0
    together: list[int] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    visits: int = 0
    albums: list[Album] = field(default_factory=list)


@dataclass(frozen=True)
class Server:
    """A server that is up: its address and its process."""

    url: str
    pid: int

    def memory(self) -> float:
        """Resident memory in MiB; 0 where /proc is missing."""
        return common.resident(pid=self.pid) / 2**20


@contextlib.contextmanager
def serving(options: list[str]) -> Iterator[Server]:
    """`magi-world serve` on a free port, with a scratch folder."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "magi_world.demos.cli", "serve", "--port", "0",
            "--folder", folder, *options,
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if found := re.search(r"http://(\S+?)/", line):
                    yield Server(f"ws://{found[1]}", process.pid)
                    break
            else:
                raise OSError("the server did not start")
        finally:
            process.terminate()
            process.wait(20)


async def visit(server: Server, number: int, seed: int, seconds: float, seen: Seen) -> None:
    """Play for so long: a new command every few seconds, everything counted."""
    name = f"{number:032x}"
    end = time.monotonic() + seconds
    address = f"{server.url}/play?visit={name}&key={name}"
    async with connect(address, max_size=None) as socket:
        welcome = json.loads(await socket.recv())
        if welcome["type"] == "refused":
            seen.strangers.append(f"refused: {welcome['message']}")
            return
        commands = [c["name"] for c in welcome["world"]["commands"]] or ["walk", "turn"]
        await _say(socket, "reset", seed=seed, start=None, scene=None)
        chance = random.Random(number)
        mine = {welcome["world"]["default_command"]}
        asked: tuple[str, float] | None = None
        shown, index, ready, settled = "", -1, False, False
        album = Album(seed)
        seen.albums.append(album)
        next_at = time.monotonic() + 1.0
        while time.monotonic() < end:
            now = time.monotonic()
            if now >= next_at and asked is None:
                text = chance.choice([c for c in commands if c != shown])
                mine.add(text)
                asked, next_at = (text, now), now + EVERY
                await _say(socket, "say", text=text)
            try:
                got = await asyncio.wait_for(socket.recv(), max(0.01, min(next_at, end) - now))
            except TimeoutError:
                next_at = max(next_at, now)
                continue
            if isinstance(got, bytes):
                seen.frames += 1
                _, frame, _, _, chunk, _ = HEADER.unpack(got[: HEADER.size])
                if settled and chunk == index and chunk in album.commands:
                    album.pictures[chunk, frame] = got[HEADER.size :]
                if asked is not None and ready and chunk == index:
                    seen.delays.append(time.monotonic() - asked[1])
                    asked = None
                continue
            message = json.loads(got)
            if message["type"] == "chunk":
                index, shown = message["index"], message["command"]
                seen.dropped = message["dropped"]
                ready = asked is not None and shown == asked[0]
                if message["seed"] == seed:
                    settled = True
                    if 0 < index <= KEPT:
                        album.commands[index] = shown
                    seen.together.append(message["together"])
                # Until the reset was obeyed it is the world that a visit opens with.
                if settled and (message["seed"] != seed or shown not in mine):
                    seen.strangers.append(f"visitor {number}: {message}")
    seen.visits += 1


async def _say(socket: ClientConnection, kind: str, **fields: object) -> None:
    await socket.send(json.dumps({"type": kind, **fields}))


Tell = Callable[[dict[str, object]], None]


async def telling(figures: Callable[[], dict[str, object]], tell: Tell) -> None:
    """Say what there is, again and again."""
    while True:
        await asyncio.sleep(TELL)
        tell(figures())


@contextlib.asynccontextmanager
async def told(figures: Callable[[], dict[str, object]], tell: Tell) -> AsyncIterator[None]:
    task = asyncio.create_task(telling(figures, tell))
    try:
        yield
    finally:
        task.cancel()


def compare(world: str, seen: list[Seen]) -> dict[str, object]:
    """Pictures that visitors saw against those of the world here: how far they are off.

    Args:
        world: as the server loaded it.
    """
    here = magi_world.load_world(world)
    albums = [a for s in seen for a in s.albums if a.pictures]
    random.Random(0).shuffle(albums)
    off: list[float] = []
    for album in albums[:COMPARED]:
        here.reset(album.seed)
        for chunk in range(1, KEPT + 1):
            if chunk not in album.commands:
                break
            frames = here.step(album.commands[chunk]).frames[0]
            for (number, frame), file in album.pictures.items():
                if number == chunk:
                    picture = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"), float)
                    off.append(float(np.abs(picture - frames[frame]).mean()))
    return {
        "pictures_compared": len(off),
        "pictures_off_mean": float(np.mean(off)) if off else None,
        "pictures_off_most": max(off, default=None),
        "pictures_of_others": sum(x > ALIKE for x in off),
    }


async def load(server: Server, seen: list[Seen], seconds: float, tell: Tell) -> dict[str, object]:
    """As many visitors at once as there are counters in ``seen``."""
    begun, visitors = time.monotonic(), len(seen)
    async with told(lambda: counted(server, seen, time.monotonic() - begun), tell):
        await asyncio.gather(
            *(visit(server, 1000 * visitors + i, i, seconds, s) for i, s in enumerate(seen))
        )
    return counted(server, seen, seconds)


def counted(server: Server, seen: list[Seen], seconds: float) -> dict[str, object]:
    delays = [d for s in seen for d in s.delays]
    rates = [s.frames / seconds for s in seen]
    return {
        "visitors": len(seen),
        "seconds": seconds,
        "strangers": [x for s in seen for x in s.strangers][:5],
        "frames_a_second_each": float(np.mean(rates)),
        "frames_a_second_least": float(min(rates)),
        "words_to_picture_p50": float(np.percentile(delays, 50)) if delays else None,
        "words_to_picture_p95": float(np.percentile(delays, 95)) if delays else None,
        "commands": len(delays),
        "together": float(np.mean([n for s in seen for n in s.together] or [0])),
        "dropped": sum(s.dropped for s in seen),
        "memory_mib": server.memory(),
    }


async def soak(server: Server, seen: list[Seen], seconds: float, tell: Tell) -> dict[str, object]:
    """Visitors who come, play a while, hang up without a word, and come again as somebody else."""
    begun = time.monotonic()
    end = begun + seconds
    visitors, memory = len(seen), [server.memory()]

    def figures() -> dict[str, object]:
        third = max(1, len(memory) // 3)
        return {
            "visitors": visitors,
            "seconds": time.monotonic() - begun,
            "visits": sum(s.visits for s in seen),
            "frames": sum(s.frames for s in seen),
            "strangers": [x for s in seen for x in s.strangers][:5],
            "memory_mib_first": memory[0],
            "memory_mib_second_third": float(np.mean(memory[third : 2 * third] or memory)),
            "memory_mib_last_third": float(np.mean(memory[-third:])),
            "memory_mib_most": max(memory),
        }

    async def regular(row: int) -> None:
        chance, number = random.Random(row), row * 1_000_000
        while (left := end - time.monotonic()) > 1:
            number += 1
            stay = min(left, chance.uniform(3, 40))
            with contextlib.suppress(ConnectionClosed, OSError):
                await visit(server, number, number, stay, seen[row])
            await asyncio.sleep(chance.uniform(0, 2))

    async def watch() -> None:
        while time.monotonic() < end:
            memory.append(server.memory())
            await asyncio.sleep(min(5.0, seconds / 20))

    async with told(figures, tell):
        await asyncio.gather(*(regular(row) for row in range(visitors)), watch())
    return figures()


def main() -> None:
    """See the module."""
    parser = common.options(__doc__, seconds=120)
    parser.add_argument("world", nargs="?", help="by default the shipped one")
    parser.add_argument("--visitors", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--soak", action="store_true", help="visitors who come and go")
    parser.add_argument("--threads", type=int, help="of the CPU")
    given = parser.parse_args()
    # Cut short, it takes the server with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    flags = ["--visitors", "64", *([given.world] if given.world else [])]
    flags += ["--threads", str(given.threads)] if given.threads else []
    world = given.world or DEFAULT_WORLD
    seconds = 8.0 if given.tiny else given.seconds
    counts = [2] if given.tiny else given.visitors
    if given.soak:
        seen = [Seen() for _ in range(max(counts))]
        with serving(flags) as server:
            tell = partial(common.report, "serve: soak", done=False)
            figures = asyncio.run(soak(server, seen, seconds, tell))
        common.report("serve: soak", {**figures, **compare(world, seen)})
        return
    loads: dict[str, object] = {}
    for visitors in counts:
        seen, name = [Seen() for _ in range(visitors)], f"visitors_{visitors}"
        common.note(f"{visitors} visitors, {seconds / len(counts):.0f} s")
        with serving(flags) as server:
            now = partial(_with, loads, name)
            figures = asyncio.run(load(server, seen, seconds / len(counts), now))
        loads[name] = {**figures, **compare(world, seen)}
        common.report("serve", loads, done=visitors == counts[-1])


def _with(loads: dict[str, object], name: str, figures: dict[str, object]) -> None:
    common.report("serve", {**loads, name: figures}, done=False)


if __name__ == "__main__":
    main()
