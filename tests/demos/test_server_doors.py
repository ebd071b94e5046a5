"""The doors for other people's programs, each opened by its own client."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.alike import assert_alike
from tests.tiny import COMMANDS, FRAME_SIZE, tiny_world

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from tests.demos.server_stage import Running, page, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("served"), limits={"chunks": None}) as made:
        yield made


def picture(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def test_openenv(server: Running) -> None:
    core = pytest.importorskip("openenv.core.generic_client")
    with core.GenericEnvClient(base_url=server.http).sync() as env:
        begun = env.reset(seed=5, max_chunks=3)
        near = tiny_world()
        assert_alike(picture(begun.observation["image"]), near.reset(5).frames[0, -1])
        assert begun.observation["commands"] == list(COMMANDS)
        first = env.step({"text": "turn lfet"})
        assert_alike(picture(first.observation["image"]), near.step("turn left").frames[0, -1])
        assert first.observation["understood"]["command"] == "turn left"
        assert (first.done, first.reward) == (False, 0.0)
        puzzled = env.step({"text": "open the fridge"})
        assert "this world has no" in puzzled.observation["text"]
        assert puzzled.observation["command"] in ("turn left", "stand still")
        state = env.state()
        assert (state["step_count"], state["seed"]) == (2, 5)
        assert env.step({"text": ""}).done
        with pytest.raises(RuntimeError, match="the episode is over"):
            env.step({"text": "turn left"})
        with pytest.raises(RuntimeError, match="must be a text"):
            env.step({"text": 3})
        env.reset()


def test_openenv_over_http(server: Running) -> None:
    httpx = pytest.importorskip("httpx")
    with httpx.Client(base_url=server.http) as client:
        assert client.get("/health").json() == {"status": "healthy"}
        assert client.get("/metadata").json()["name"] == "magi-world/tiny"
        assert set(client.get("/schema").json()) == {"action", "observation", "state"}
        assert client.get("/state").json()["step_count"] == 0
        assert client.post("/reset", json={"seed": 3}).json()["done"] is False
        step = client.post("/step", json={"action": {"text": "turn left"}}).json()
        assert step["observation"]["command"] == "turn left"
        wrong = client.post("/step", json={"action": {"words": "x"}})
        assert (wrong.status_code, "words" in wrong.json()["detail"]) == (422, True)
    assert not server.hub.programs


def test_mcp(server: Running) -> None:
    pytest.importorskip("mcp")
    asyncio.run(_mcp(server.http))


async def _mcp(url: str) -> None:
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    def shape(result: Any) -> tuple[int, ...]:
        assert not result.isError, result.content
        text, image = result.content
        assert text.type == "text"
        return picture(image.data).shape

    async with (
        streamable_http_client(f"{url}/mcp") as (read, write, _),
        ClientSession(read, write) as session,
    ):
        hello = await session.initialize()
        assert "turn left" in (hello.instructions or "")
        names = {tool.name for tool in (await session.list_tools()).tools}
        assert names >= {"reset", "step", "look", "fork", "rewind"}
        seen = await session.call_tool("reset", {"seed": 5})
        assert shape(seen)[0] >= 256
        seen = await session.call_tool("step", {"text": "turn left twice, then walk forward"})
        assert "Chunk 3, in force: walk forward" in seen.content[0].text
        look = await session.call_tool("look", {})
        assert look.content[1].data == seen.content[1].data
        fork = await session.call_tool("fork", {"texts": ["turn left", "turn right"], "chunks": 2})
        high, wide, _ = shape(fork)
        assert wide * FRAME_SIZE[0] == 2 * high * FRAME_SIZE[1]
        kept = await session.call_tool("keep", {"number": 2})
        assert "Chunk 5, in force: turn right" in kept.content[0].text
        back = await session.call_tool("rewind", {"chunks": 2})
        assert "Chunk 3" in back.content[0].text
        assert back.content[1].data == look.content[1].data
        puzzled = await session.call_tool("step", {"text": "open the fridge"})
        assert "this world has no" in puzzled.content[0].text
        wrong = await session.call_tool("fork", {"texts": ["turn left"]})
        assert wrong.isError
        assert "must have 2 .. 4" in wrong.content[0].text


def test_video_over_webrtc(server: Running) -> None:
    pytest.importorskip("aiortc")
    pytest.importorskip("httpx")
    with page(server) as one:
        assert one.until("welcome")["video"]
        one.until("chunk")
        frame = asyncio.run(_first_frame(f"{server.http}/video?visit={1:032x}"))
    assert frame.shape[0] >= 256
    assert frame.shape[1] * FRAME_SIZE[0] == frame.shape[0] * FRAME_SIZE[1]


async def _first_frame(url: str) -> np.ndarray:
    import httpx
    from aiortc import RTCPeerConnection, RTCSessionDescription

    peer = RTCPeerConnection()
    peer.addTransceiver("video", direction="recvonly")
    tracks: asyncio.Queue[Any] = asyncio.Queue()
    peer.on("track", tracks.put_nowait)
    try:
        await peer.setLocalDescription(await peer.createOffer())
        offer = {"type": peer.localDescription.type, "sdp": peer.localDescription.sdp}
        async with httpx.AsyncClient() as client:
            answer = (await client.post(url, json=offer, timeout=30)).json()
            refused = await client.post(url, json={"type": "x"})
            assert (refused.status_code, "offer" in refused.text) == (422, True)
        assert "H264" in answer["sdp"]
        await peer.setRemoteDescription(RTCSessionDescription(**answer))
        track = await tracks.get()
        frame = await asyncio.wait_for(track.recv(), 60)
        return frame.to_ndarray(format="rgb24")
    finally:
        await peer.close()
