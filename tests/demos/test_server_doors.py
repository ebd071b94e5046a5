"""The doors for other people's programs, each opened by its own client."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
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


@pytest.mark.slow
def test_openenv(server: Running, request: pytest.FixtureRequest) -> None:
    """Its client may live in an environment of its own: pytest --openenv PYTHON."""
    python = request.config.getoption("--openenv")
    if python is None:
        pytest.importorskip("openenv.core.generic_client")
        python = sys.executable
    script = Path(__file__).with_name("openenv_client.py")
    line = [str(python), str(script), server.http]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    state, begun, first, puzzled, last, over, wrong, again = seen
    near = tiny_world()
    assert_alike(picture(begun[0]["image"]), near.reset(5).frames[0, -1])
    assert begun[0]["commands"] == list(COMMANDS)
    assert_alike(picture(first[0]["image"]), near.step("turn left").frames[0, -1])
    assert first[0]["understood"]["command"] == "turn left"
    assert (first[1], first[2]) == (0.0, False)
    assert "this world has no" in puzzled[0]["text"]
    assert puzzled[0]["command"] in ("turn left", "stand still")
    assert (state["step_count"], state["seed"]) == (2, 5)
    assert last[2] is True
    assert "the episode is over" in over
    assert "must be a text" in wrong
    assert again[0]["image"] == begun[0]["image"]


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
