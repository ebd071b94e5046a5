"""`magi-world serve` as a command: what it prints and refuses, and what a kill leaves behind."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from magi_world import load_world
from magi_world.demos.cli import main
from magi_world.session.player import replay
from magi_world.session.session import read_session
from tests.tiny import write_tiny_package

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("websockets")

from websockets.sync.client import connect

from magi_world.demos.server.config import Limits, ServeConfig, link
from tests.demos.server_stage import Page


def test_a_kill_loses_no_session(tmp_path: Path) -> None:
    world = write_tiny_package(tmp_path / "tiny")
    command = [sys.executable, "-m", "magi_world.demos.cli", "serve", str(world), "--port", "0"]
    command += ["--folder", str(tmp_path / "served"), "--threads", "1", "--token", "auto"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        printed = next(
            found for line in server.stdout if (found := re.search(r"//(\S+)/(\S+)", line))
        )
        address, query = printed[1], printed[2]
        assert re.fullmatch(r"\?token=\S{20,}", query)
        name = f"{7:032x}"
        with connect(f"ws://{address}/play{query}&visit={name}&key={name}") as socket:
            page = Page(socket)
            page.say("say", text="turn left")
            last = page.until("chunk", 60, command="turn left")
            server.kill()
            server.wait(10)
    finally:
        server.kill()
    (path,) = (tmp_path / "served" / "sessions").glob("*.jsonl")
    session = read_session(path)
    *_, chunk = replay(session, load_world(session.header.world, threads=None))
    assert chunk.index[0] >= last["index"]
    assert chunk.prompts == ("turn left",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "give a token"),
        (["--token", "short"], "at least 8 characters"),
        (["--quality", "101"], "ServeConfig.quality is 101"),
        (["--idle", "0"], "Limits.idle is 0"),
        (["--chunks", "-1"], "Limits.chunks is -1"),
        (["mars"], "there is no world 'mars'"),
        (["mars", "mars"], "named twice"),
    ],
)
def test_refusals(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", "0", *options]) == 2
    assert message in capsys.readouterr().err


def test_links() -> None:
    assert link(ServeConfig(port=80)) == "http://127.0.0.1:80/"
    assert link(ServeConfig("::1", 80, token="12345678")) == "http://[::1]:80/?token=12345678"
    assert "0.0.0.0" not in link(ServeConfig("0.0.0.0", 80, open=True))
    assert ServeConfig("127.8.0.1").loopback
    assert not ServeConfig("example.org", open=True).loopback
    with pytest.raises(ValueError, match=r"Limits\.visitors is 0"):
        Limits(visitors=0)


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    world = write_tiny_package(tmp_path / "tiny")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        assert main(["serve", str(world), "--port", port]) == 2
    assert "--port 0 takes a free one" in capsys.readouterr().err
