"""Worlds to and from the hub, with the real client against a stand-in on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from magi_world.card import world_card
from magi_world.hub import HubAddress, released_patterns
from magi_world.loading import world_folders
from magi_world.package import check_package, read_record
from magi_world.released import PRESETS
from tests.hub_server import Repositories, hub_server
from tests.tiny import write_tiny_package

pytest.importorskip("huggingface_hub", reason="needs the extra hub")


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def typed(home: Path, address: str, *words: str, token: str = "t") -> tuple[int, str]:
    """Exit status and output of our command line, with that hub."""
    home.mkdir(exist_ok=True)
    env = {
        **os.environ, "HF_ENDPOINT": address, "HF_HOME": str(home / "hf"), "HOME": str(home),
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": token,
        "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
    }  # fmt: skip
    env.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, *words]
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=200, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_a_world_goes_to_the_hub_and_back(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path / "w")
    repositories: Repositories = {}
    with hub_server(repositories) as hub:
        run = "-m", "magi_world"
        status, said = typed(tmp_path / "a", hub, *run, "push-world", str(package), "me/room")
        assert status == 0, said
        stored = repositories["me/room"]
        card = stored.pop("README.md").decode()
        assert card.startswith("---\nlibrary_name: magi-world")
        assert 'load_world("hf:me/room")' in card
        assert stored == files_of(package)
        # Something that is no part of a world is not fetched.
        stored["evil.py"] = b"raise SystemExit"
        status, said = typed(tmp_path / "b", hub, *run, "download", "me/room")
        assert status == 0, said
        made = tmp_path / "b" / ".magi-world" / "worlds" / "tiny"
        assert files_of(made) == files_of(package)
        assert not any(p.is_symlink() for p in made.rglob("*"))
        status, said = typed(tmp_path / "b", hub, *run, "download", "hf:me/room")
        assert status == 2
        assert "is there already" in said
        status, said = typed(tmp_path / "b", hub, *run, "download", "me/room", "--overwrite")
        assert status == 0, said
        code = "import magi_world; w = magi_world.load_world('hf:me/room'); w.reset(seed=0); "
        code += "print(w.step('turn left').frames.shape)"
        status, said = typed(tmp_path / "c", hub, "-c", code)
        assert (status, said.splitlines()[-1]) == (0, "(1, 8, 32, 48, 3)"), said
    assert check_package(made) == []


def test_what_cannot_be_had_from_the_hub_is_named(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path / "w")
    good = files_of(package)
    hurt = {**good, "vae.safetensors": good["vae.safetensors"][:-1] + b"\x01"}
    short = {name: body for name, body in good.items() if name != "dit.safetensors"}
    repositories = {"me/hurt": hurt, "me/short": short, "me/empty": {"a.txt": b"a"}}
    with hub_server(repositories) as hub:
        for what, message in (
            ("me/none", "there is no me/none on the hub"),
            ("me/hurt", "vae.safetensors is damaged"),
            ("me/short", "dit.safetensors is missing"),
            ("me/empty", "it has no world.json"),
        ):
            status, said = typed(tmp_path / "a", hub, "-m", "magi_world", "download", what)
            assert (status, message in said) == (2, True), said
    assert not (tmp_path / "a" / ".magi-world").exists()


@pytest.mark.parametrize("text", ["", "room", "a/b/c", "hf:/x", "../x", "a/..", "a b/c", "a/b@"])
def test_what_is_no_address_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is no address on the hub"):
        HubAddress.of(text)


def test_addresses() -> None:
    assert HubAddress.of("hf:me/room") == HubAddress("me/room")
    assert HubAddress.of("me/room@v1.0") == HubAddress("me/room", "v1.0")


def test_every_released_model_has_its_files() -> None:
    folders = {released_patterns(name)[0] for name in PRESETS}
    assert len(folders) == len(PRESETS)
    assert "ckpt/magi/24B_distill_quant/*" in folders
    assert "ckpt/magi/4.5B_base/*" in folders
    with pytest.raises(ValueError, match="there is no model 'magi-2'"):
        released_patterns("magi-2")


def test_every_shipped_world_has_a_card() -> None:
    for name, folder in world_folders().items():
        record = read_record(folder)
        card = world_card(record)
        assert card.startswith(f"# {name}\n")
        for command in record["commands"]:
            assert f"| {command['name']} |" in card
        assert record["licence"] in card
