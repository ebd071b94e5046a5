"""One YAML file configures everything, and says what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from magi_world.io.records import Mistakes
from magi_world.simulator import load_object
from magi_world.training.settings import read_settings

SHIPPED = Path(__file__).parents[2] / "configs" / "courtyard.yaml"


def changed(tmp_path: Path, old: str, new: str) -> Path:
    text = SHIPPED.read_text()
    assert text.count(old) == 1, old
    path = tmp_path / "changed.yaml"
    path.write_text(text.replace(old, new))
    return path


def test_the_shipped_configuration_is_read() -> None:
    config = read_settings(SHIPPED)
    assert config.record.actions["turn left"]["continuous"] == [-2.25]
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
        ("starts: 32", "starts: many", r"starts is 'many'; it must be a whole number"),
        ("starts: 32", "start: 48", r"line 17: .* has no field 'start'; did you mean 'starts'\?"),
        ("\nheads:\n", "\nheads: 7\nclassify:\n", "heads is 7; it must be keys and values"),
        ("chunk_width: 2", "chunk_width: 3", "chunk_width is 3"),
        ("default_command: stand still", "default_command: fly", "default_command is 'fly'"),
        ("copies: 1", "copies: {}", "copies is {}"),
        ("num_steps: [4, 8]", "num_steps: 4", "num_steps is 4; it must be a list"),
        ("copies: 1", "copies: [", "not valid YAML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_settings(changed(tmp_path, old, new))


MINIMAL = """
record:
  env: toy:make()
  frame_key: screen
  frame_size: [16, 16]
  actions: {do nothing: 0, go left: 1, go right: 2}
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "bar-world.yaml"
    path.write_text(text)
    return path


def test_every_section_has_defaults(tmp_path: Path) -> None:
    config = read_settings(written(tmp_path, MINIMAL))
    assert config.name == "bar-world"
    assert list(config.commands) == ["do nothing", "go left", "go right"]
    assert all(len(c.phrases) >= 15 and len(c.held_out) == 6 for c in config.commands.values())
    assert config.record.policy.endswith(":StickyRandom")
    assert config.heads.from_environment
    assert config.heads.end == "death"
    assert config.dynamics.dit.caption_channels == config.text.channels
    assert config.codec.vae.video_size == 16
    # Parts of sections may be left out, too, and what is left still fits together.
    for more in (
        "dynamics: {history: 2, loop: {steps: 3}}",
        "codec: {vae: {latent_channels: 6, width: 48, depth: 1, heads: 4}}",
        "text: {channels: 32}",
        "text: {pieces: 5000}",
        "heads:\n",
        "dynamics: {dit: {latent_channels: 12}}\ncodec: {vae: {latent_channels: 12}}",
        "commands: {go right: {keys: [r]}}",
        "dynamics: {shift: 0.5}",
        "sampler: {num_steps: 8}",
    ):
        config = read_settings(written(tmp_path, MINIMAL + more))
        assert config.sampler.history == config.dynamics.history, more
        assert config.sampler.shift == config.dynamics.shift, more
        assert config.sampler.passes == 1, more
        assert config.dynamics.dit.latent_channels == config.codec.vae.latent_channels, more
        assert config.dynamics.dit.caption_channels == config.text.channels, more
    four = MINIMAL + "  frames_per_chunk: 4\n"
    assert read_settings(written(tmp_path, four)).sampler.chunk_width == 1


def test_all_mistakes_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    text = """name: bar
starts: [3]
record:
  env: toy:make()
  actions: {stay: 0, go left: 1}
  mirror: {left: right}
  processes: 0
  fps: 3
commands:
  stay: {phrases: [wait]}
  go left: {phrases: [wait], keyes: [a]}
  fly: {phrases: [up]}
heads:
  events: [hit]
  reward: {jump: 1}
evaluate: {clips: 0}
"""
    with pytest.raises(Mistakes) as caught:
        read_settings(written(tmp_path, text))
    found = {(m.line, m.text.split(";")[0]) for m in caught.value.found}
    lines = [m.line for m in caught.value.found]
    assert lines == sorted(lines)
    assert (2, "starts is [3]") in {(n, t) for n, t in found}
    assert any(n == 7 and "processes is 0" in t for n, t in found)
    assert any(n == 8 and "record has no field 'fps'" in t for n, t in found)
    assert any(n == 11 and "no field 'keyes'" in t for n, t in found)
    assert any(n == 15 and "jump" in t for n, t in found)
    assert any(n == 16 and "evaluate.clips is 0" in t for n, t in found)
    assert str(caught.value).count("bar-world.yaml, line") == len(found)


def test_sections_must_agree(tmp_path: Path) -> None:
    text = (
        MINIMAL
        + """  mirror: {left: right}
  max_chunks_per_episode: 6
commands:
  go left: {phrases: [west, "to the east"]}
  go right: {phrases: ["To the  East"]}
heads:
  events: [hit, death]
starts_before: hit
default_command: fly
sampler: {kv_range: [9], shift: 2}
text: {channels: 96}
dynamics:
  dit: {caption_channels: 8}
  often: {coin: 4}
  weigh: {go left: 2, swim: 2}
best_start: 32
"""
    )
    with pytest.raises(Mistakes) as caught:
        read_settings(written(tmp_path, text))
    told = "\n".join(f"{m.line} {m.text}" for m in caught.value.found)
    for line in (
        "11 the phrasing 'To the  East' of 'go right' is one of 'go left' too",
        "13 heads.events names 'hit'; recorded are ['death']",
        "14 starts_before is 'hit'",
        "15 default_command is 'fly'",
        "16 sampler.kv_range is [9], that is 8 clean chunks; it must be [5]",
        "16 sampler.shift is 2.0; it must be dynamics.shift (3.0)",
        "18 dynamics.chunks is 8; clips lie within an episode",
        "19 dynamics.dit.caption_channels is 8; it must be text.channels (96)",
        "20 dynamics.often has ['coin']; of this recording it may have []",
        "21 dynamics.weigh has ['swim']; of this recording it may have ['do nothing', 'go left', ",
        "22 best_start is 32; it must be 0 .. 31",
    ):
        assert line in told, told
    twinless = MINIMAL.replace("go right", "go up") + "  mirror: {left: right}\n"
    with pytest.raises(Mistakes, match=r"line 6: record\.mirror makes 'go right' of 'go left'"):
        read_settings(written(tmp_path, twinless))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "line 1: not valid YAML"),
        ("- a", "line 1: must be keys and values"),
        ("name: a\nname: b\nrecord: {env: x}", "line 2: name is there twice"),
        ("x: &a {b: *a}", "has no field 'x'"),
        ("", "record.* lacks env"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(Mistakes, match=message):
        read_settings(written(tmp_path, text))


def test_modules_beside_the_file_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "beside_the_file.py").write_text("class Player:\n    pass\n")
    read_settings(written(tmp_path, MINIMAL))
    assert load_object("beside_the_file:Player").__name__ == "Player"
