"""The server as a page sees it: words, pictures, rewind, futures, slots, limits."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from magi_world.io.media import load_video
from magi_world.session.player import replay
from magi_world.session.session import read_session
from tests.alike import assert_alike
from tests.tiny import FRAME_SIZE, tiny_world

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("websockets")

from websockets.exceptions import ConnectionClosed

from magi_world.demos.server.pictures import decode
from tests.demos.server_stage import page, running


def fetch(url: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_words_become_pictures(tmp_path: Path) -> None:
    with running(tmp_path) as server, page(server) as one:
        welcome = one.until("welcome")
        assert [c["name"] for c in welcome["world"]["commands"]][1] == "turn left"
        one.say("say", text="turn left twice, then walk forward")
        told = one.until("understood")
        assert (told["obeyed"], told["command"]) == (True, "turn left")
        first = one.until("chunk", command="turn left")
        assert first["chips"]
        one.until("chunk", command="walk forward")
        said = [m["command"] for m in one.messages if m["type"] == "chunk"]
        assert said.count("turn left") == 2
        _, data = one.picture(kind=0)
        assert decode(data).shape == (*FRAME_SIZE, 3)
        one.say("say", text="open the fridge")
        told = one.until("understood")
        assert not told["obeyed"]
        assert "this world has no" in told["answer"]


def test_pause_rewind_and_go_on_from_there(tmp_path: Path) -> None:
    with running(tmp_path) as server, page(server) as one:
        one.until("chunk", index=4)
        one.say("pause", on=True)
        one.until("state", paused=True)
        one.say("rewind", chunk=2)
        assert one.until("state", cursor=2)["paused"]
        one.picture(still=1, chunk=2)
        one.say("say", text="turn right")
        one.say("step")
        made = one.until("chunk", index=3)
        assert made["command"] == "turn right"
        assert one.until("state", paused=True, cursor=3)["indices"] == [0, 1, 2, 3]


def test_a_world_that_nobody_talks_to_rests(tmp_path: Path) -> None:
    with running(tmp_path, rest=0.7) as server, page(server) as one:
        assert one.until("note")["text"] == "the world rests until somebody says something"
        still = one.until("state", paused=True)
        one.say("say", text="turn left twice")
        one.until("state", paused=False)
        assert one.until("chunk", command="turn left")["index"] == still["cursor"] + 1
        one.until("note", text="the world rests until somebody says something")
        one.until("state", paused=True)


def test_four_futures_and_one_is_kept(tmp_path: Path) -> None:
    with running(tmp_path) as server, page(server) as one:
        one.until("chunk", index=1)
        one.say("whatif")
        futures = one.until("futures", chunks=2)
        assert len(set(futures["commands"])) == 4
        _, strip = one.picture(kind=1)
        assert decode(strip).shape == (FRAME_SIZE[0], 4 * FRAME_SIZE[1], 3)
        one.say("future", row=1, text="walk forward")
        assert one.until("futures", chunks=1)["commands"][1] == "walk forward"
        one.say("keep", row=7)
        assert "row is 7" in one.until("refused")["message"]
        one.say("keep", row=1)
        one.until("futures", commands=[])
        state = one.until("state")
        assert state["command"] == "walk forward"
        assert state["cursor"] > futures["base"]


def test_a_moment_outlives_the_server(tmp_path: Path) -> None:
    with running(tmp_path) as server, page(server) as one:
        one.say("say", text="turn left")
        one.until("chunk", command="turn left")
        one.say("pause", on=True)
        one.say("save", slot=2)
        assert one.until("state", slots=[2])
        saved = [m for m in one.messages if m["type"] == "state"][-1]["cursor"]
        visit = f"{1:032x}"
        assert fetch(f"{server.http}/slot/2?visit={visit}")[1].startswith(b"\xff\xd8")
        one.say("load", slot=3)
        assert "slot 3 is empty" in one.until("note", level="error")["text"]
    with running(tmp_path) as server, page(server) as one:
        assert one.until("state")["slots"] == [2]
        one.say("load", slot=2)
        assert one.until("state", cursor=saved)["command"] == "turn left"


def test_the_session_replays_what_was_seen(tmp_path: Path) -> None:
    with running(tmp_path) as server, page(server) as one:
        one.say("say", text="turn left")
        one.until("chunk", index=3)
        one.say("rewind", chunk=1)
        one.until("state", cursor=1)
        one.say("whatif", commands=["turn right", "walk forward"])
        one.until("futures", chunks=2)
        one.say("keep", row=1)
        one.until("state", paused=True, command="walk forward")
        one.say("save", slot=1)
        one.until("state", slots=[1])
        visitor = server.hub.visitors[f"{1:032x}"]
        state = visitor.past.current.snapshot
        code, text = fetch(f"{server.http}/session.jsonl?visit={visitor.visit}")
        assert code == 200
    path = tmp_path / "copy.jsonl"
    path.write_bytes(text)
    world = tiny_world()
    *_, last = replay(read_session(path), world)
    assert last.prompts == ("turn right", "walk forward")
    assert world.snapshot().prompts == state.prompts
    assert_alike(world.snapshot().state.newest_clean, state.state.newest_clean)


def test_the_journey_is_a_film(tmp_path: Path) -> None:
    with running(tmp_path) as server, page(server) as one:
        assert fetch(f"{server.http}/journey.mp4?visit=unknown")[0] == 404
        one.until("chunk", index=3)
        one.say("pause", on=True)
        one.until("state", paused=True)
        code, film = fetch(f"{server.http}/journey.mp4?visit={1:032x}")
        assert code == 200
    (tmp_path / "film.mp4").write_bytes(film)
    frames = load_video(tmp_path / "film.mp4")
    assert len(frames) % 8 == 0
    assert len(frames) >= 4 * 8


def test_nobody_sees_anothers_world(tmp_path: Path) -> None:
    with running(tmp_path) as server, page(server, 1) as one, page(server, 2) as two:
        for player in (one, two):
            player.say("reset", seed=3 if player is one else 4, start=None, scene=None)
        one.say("say", text="turn left")
        two.say("say", text="turn right")
        for player, say, seed in ((one, "turn left", 3), (two, "turn right", 4)):
            player.until("chunk", index=2)
            chunks = [m for m in player.messages if m["type"] == "chunk" and m["index"]]
            assert {m["seed"] for m in chunks[-1:]} == {seed}
            assert say in {m["command"] for m in chunks} <= {say, "stand still"}
        fetch_other = fetch(f"{server.http}/session.jsonl?visit={9:032x}")
        assert fetch_other[0] == 404


def test_keys_steer_while_they_are_held(tmp_path: Path) -> None:
    with running(tmp_path) as server, page(server) as one:
        one.until("chunk", index=1)
        one.say("key", key="left", down=True)
        one.until("chunk", command="turn left")
        one.say("key", key="left", down=False)
        one.until("chunk", command="stand still")


def test_whoever_comes_back_finds_the_world_as_it_was(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        with page(server) as one:
            one.say("reset", seed=11, start=None, scene=None)
            one.until("chunk", seed=11, index=2)
        time.sleep(0.3)
        index = server.hub.visitors[f"{1:032x}"].past.current.index
        time.sleep(0.5)
        with page(server) as one:
            assert abs(one.until("state")["cursor"] - index) <= 1
            assert one.until("chunk")["seed"] == 11


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        ("not json", "must be a JSON object"),
        ('{"type": "dance"}', "must be one of say"),
        ('{"type": "say"}', "say.text is 'None'"),
        ('{"type": "say", "text": "x", "y": 1}', "no field 'y'"),
        ('{"type": "rewind", "chunk": true}', "rewind.chunk is 'True'"),
        ('{"type": "say", "text": ""}', "must say something"),
        ('{"type": "say", "text": "%s"}' % ("a" * 301), "at most 300"),
        ('{"type": "save", "slot": 9}', "slot is 9"),
        ('{"type": "keep", "row": 0}', "ask for whatif first"),
        ('{"type": "world", "name": "mars"}', "this server has tiny"),
        ('{"type": "reset", "seed": -1, "start": null, "scene": null}', "reset.seed is -1"),
        ('{"type": "whatif", "commands": ["a"]}', "must have 2 to 4"),
    ],
)
def test_what_is_wrong_is_answered(tmp_path: Path, message: str, answer: str) -> None:
    with running(tmp_path) as server, page(server) as one:
        one.until("chunk", index=0)
        one.socket.send(message)
        assert answer in one.until("refused")["message"]
        one.until("chunk")  # and play goes on


def test_limits_are_answered(tmp_path: Path) -> None:
    limits = {"visitors": 1, "messages": 5.0, "idle": 1.5}
    with running(tmp_path, limits=limits) as server, page(server, 1) as one:
        with page(server, 2) as two:
            assert "all 1 places" in two.until("refused")["message"]
            with pytest.raises(ConnectionClosed) as closed:
                two.read()
            assert closed.value.rcvd.code == 4001
        for _ in range(20):
            one.say("step")
        assert "at most 5 a second" in one.until("refused")["message"]
        assert "the world rests" in one.until("refused", field="idle")["message"]


def test_token_origin_and_host(tmp_path: Path) -> None:
    with running(tmp_path, token="a-good-token") as server:
        assert fetch(server.http)[0] == 401
        assert fetch(f"{server.http}/?token=a-bad-token")[0] == 401
        assert fetch(f"{server.http}/?token=a-good-token")[0] == 200
        assert fetch(f"{server.http}/status", Authorization="Bearer a-good-token")[0] == 200
        assert fetch(f"{server.http}/health")[0] == 200
        with page(server) as one:
            assert "needs its token" in one.until("refused")["message"]
        with page(server, query="&token=a-good-token") as one:
            one.until("welcome")
    with running(tmp_path) as server:
        code, text = fetch(server.http, Host="evil.example")
        assert (code, b"evil.example" in text) == (403, True)
        with page(server, origin="http://evil.example") as one:
            assert "--allow-origin" in one.until("refused")["message"]
        with page(server, origin=server.http) as one:
            one.until("welcome")
        assert fetch(f"{server.http}/page/..%2fapp.py")[0] == 404
        assert fetch(f"{server.http}/page/app.js")[0] == 200


def test_a_slow_client_drops_frames_and_delays_nobody(tmp_path: Path) -> None:
    with running(tmp_path) as server, page(server, 1) as slow, page(server, 2) as quick:
        slow.until("welcome")
        outbox = server.hub.visitors[f"{1:032x}"].outbox

        async def stuck() -> None:
            import asyncio

            await asyncio.sleep(1e6)

        # The socket of the slow one takes nothing any more.
        outbox.next = stuck  # type: ignore[method-assign]
        chunk = quick.until("chunk")["index"]
        quick.until("chunk", index=chunk + 6)
        assert outbox.dropped > 20
        index = server.hub.visitors[f"{1:032x}"].past.current.index
        assert index > 3


def test_pictures_are_what_the_world_gave(tmp_path: Path) -> None:
    with running(tmp_path, quality=100) as server, page(server) as one:
        one.say("reset", seed=5, start=None, scene=None)
        one.until("chunk", seed=5, index=0)
        _, data = one.picture(still=1, chunk=0)
        alone = tiny_world()
        wanted = alone.reset(5).frames[0, -1]
        assert np.abs(decode(data).astype(int) - wanted).mean() < 3
