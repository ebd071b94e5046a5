"""Worlds to and from the hub, with the real client against a stand-in on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from magi_world import loading
from magi_world.demos.cli import main
from magi_world.io.hub import HubAddress, released_patterns, world_card
from magi_world.io.package import check_package, read_record
from magi_world.io.released import PRESETS
from magi_world.loading import world_folders
from tests.hub_server import Repositories, hub_server
from tests.tiny import write_tiny_package

constants: Any = pytest.importorskip("huggingface_hub.constants", reason="needs the extra hub")


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repositories]:
    """What the stand-in holds; the client believes that it is the hub."""
    repositories: Repositories = {}
    with hub_server(repositories) as address:
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        # Older clients copy it when they are first used.
        copied = "huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE"
        monkeypatch.setattr(copied, template, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
        monkeypatch.setattr(loading, "INSTALLED", tmp_path / "installed")
        monkeypatch.setenv("HF_TOKEN", "token")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield repositories


def test_a_world_goes_to_the_hub_and_back(
    hub: Repositories, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = write_tiny_package(tmp_path / "w")
    assert main(["push-world", str(package), "me/room"]) == 0, capsys.readouterr().err
    stored = hub["me/room"]
    card = stored.pop("README.md").decode()
    assert card.startswith("---\nlibrary_name: magi-world")
    assert 'load_world("hf:me/room")' in card
    assert stored == files_of(package)
    # Something that is no part of a world is not fetched.
    stored["evil.py"] = b"raise SystemExit"
    assert main(["download", "me/room"]) == 0, capsys.readouterr().err
    made = tmp_path / "installed" / "tiny"
    assert files_of(made) == files_of(package)
    assert not any(p.is_symlink() for p in made.rglob("*"))
    assert check_package(made) == []
    assert main(["download", "hf:me/room"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["download", "me/room", "--overwrite"]) == 0
    assert [p.name for p in made.parent.iterdir()] == ["tiny"]
    world = loading.load_world("hf:me/room")
    world.reset(seed=0)
    assert world.step("turn left").frames.shape == (1, 8, 32, 48, 3)


def test_what_cannot_be_had_from_the_hub_is_named(
    hub: Repositories, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = files_of(write_tiny_package(tmp_path / "w"))
    hub["me/hurt"] = {**good, "vae.safetensors": good["vae.safetensors"][:-1] + b"\x01"}
    hub["me/short"] = {name: body for name, body in good.items() if name != "dit.safetensors"}
    hub["me/empty"] = {"a.txt": b"a"}
    for what, message in (
        ("me/none", "there is no me/none on the hub"),
        ("me/hurt", "vae.safetensors is damaged"),
        ("me/short", "dit.safetensors is missing"),
        ("me/empty", "it has no world.json"),
    ):
        assert main(["download", what]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "installed").exists()


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
