"""One YAML file configures everything, and says what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from magi_world.training.settings import read_settings

SHIPPED = Path(__file__).parents[2] / "configs" / "vizdoom-arena.yaml"


def changed(tmp_path: Path, old: str, new: str) -> Path:
    text = SHIPPED.read_text()
    assert text.count(old) == 1, old
    path = tmp_path / "changed.yaml"
    path.write_text(text.replace(old, new))
    return path


def test_the_shipped_configuration_is_read() -> None:
    config = read_settings(SHIPPED)
    assert config.record.actions["turn left"]["continuous"] == [-2.0]
    assert config.dynamics.dit.latent_channels == config.codec.vae.latent_channels
    assert config.dynamics.dit.caption_channels == config.text.channels
    assert config.dynamics.history == config.sampler.history
    assert config.record.events["medkit"].change == "rise"
    for name, command in config.commands.items():
        assert len(command.phrases) >= 20, name
        assert len(command.held_out) >= 5, name
        assert command.keys, name
    said = [p for c in config.commands.values() for p in (*c.phrases, *c.held_out)]
    assert len(said) == len(set(said)), "one phrasing must not mean two commands"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("starts: 48", "starts: many", r"starts is 'many'; it must be of type int"),
        ("starts: 48", "begins: 32", r"unknown fields \['begins'\]"),
        ("name: vizdoom-arena\n", "", r"lacks the fields \['name'\]"),
        ("chunk_width: 2", "chunk_width: 3", "chunk_width is 3"),
        ("default_command: stand still", "default_command: fly", "default_command is 'fly'"),
        ("copies: 2", "copies: {}", "copies is {}"),
        ("num_steps: [4, 8]", "num_steps: 4", "num_steps must be a list"),
        ("copies: 2", "copies: [", "not valid YAML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_settings(changed(tmp_path, old, new))
