"""Looking at environments, and the configurations that are written for them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml

from magi_world.demos import cli
from magi_world.simulator import as_picture
from magi_world.training.new_world import clip_length, world_yaml
from magi_world.training.phrases import mirrored, plain, unique, worded
from magi_world.training.propose import (
    Look,
    actions_of,
    frame_size,
    look,
    picture_key,
    propose_actions,
)
from magi_world.training.settings import read_settings


def env_with(space: gym.Space, **inner: Any) -> Any:
    unwrapped = SimpleNamespace(**inner)
    return SimpleNamespace(action_space=space, unwrapped=unwrapped, spec=None)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NOOP", "do nothing"),
        ("RIGHTFIRE", "go right and fire"),
        ("UPLEFT", "go up left"),
        ("make_wood_pickaxe", "make wood pickaxe"),
        ("MoveForward", "move forward"),
        ("pickup", "pick up"),
        ("forward", "go forward"),
    ],
)
def test_names_become_words(name: str, said: str) -> None:
    assert plain(name) == said


def test_actions_are_named_where_the_environment_tells() -> None:
    meanings = env_with(gym.spaces.Discrete(3), get_action_meanings=lambda: ["NOOP", "FIRE", "UP"])
    assert actions_of(meanings) == ({"do nothing": 0, "fire": 1, "go up": 2}, ())
    named = env_with(gym.spaces.Discrete(2, start=3), action_names=["left", "left"])
    assert actions_of(named)[0] == {"go left": 3, "go left 2": 4}
    assert actions_of(env_with(gym.spaces.Discrete(2)))[0] == {"action 0": 0, "action 1": 1}
    box = gym.spaces.Box(np.array([-1, 0.5], np.float32), np.array([1, 2], np.float32))
    assert actions_of(env_with(box))[0] == {
        "do nothing": [0.0, 0.5],
        "axis 0 low": [-1.0, 0.5],
        "axis 0 high": [1.0, 0.5],
        "axis 1 high": [0.0, 2.0],
    }
    several = gym.spaces.MultiDiscrete([2, 3])
    assert actions_of(env_with(several))[0]["axis 1 to 2"] == [0, 2]
    parts = gym.spaces.Dict({"press": gym.spaces.MultiBinary(2), "turn": gym.spaces.Discrete(2)})
    table = actions_of(env_with(parts))[0]
    assert table["do nothing"] == {"press": [0, 0], "turn": 0}
    assert table["turn 1"] == {"press": [0, 0], "turn": 1}
    with pytest.raises(ValueError, match="have no commands"):
        actions_of(env_with(gym.spaces.Text(5)))


def test_pictures_are_found() -> None:
    picture = np.zeros((64, 48, 3), np.uint8)
    assert picture_key(picture) == "."
    assert picture_key({"map": np.zeros((7, 7, 3), np.uint8), "screen": picture}) == "screen"
    assert picture_key(np.zeros(4, np.float32)) == ""
    assert as_picture(np.zeros((5, 4), np.uint8)).shape == (5, 4, 3)
    with pytest.raises(ValueError, match="render_mode: rgb_array"):
        as_picture(None)


@pytest.mark.parametrize(
    ("picture", "size"),
    [((64, 64), (64, 64)), ((400, 600), (64, 96)), ((240, 320), (48, 64)), ((96, 96), (64, 64))],
)
def test_frames_keep_their_shape(picture: tuple[int, int], size: tuple[int, int]) -> None:
    found = frame_size(picture)
    assert found == size or abs(found[0] / found[1] - picture[0] / picture[1]) < 0.12
    assert found[0] % 16 == found[1] % 16 == 0


def test_phrases_and_keys_mean_one_command_each() -> None:
    names = [
        "do nothing",
        "go left",
        "go right",
        "turn left",
        "jump",
        "make table",
        "go left and jump",
    ]
    words = worded(names)
    said = [p.lower() for w in words.values() for p in (*w["phrases"], *w["held_out"])] + names
    assert len(said) == len(set(said))
    keys = [k for w in words.values() for k in w["keys"]]
    assert len(keys) == len(set(keys))
    assert all(w["keys"] and len(w["phrases"]) >= 12 and w["held_out"] for w in words.values())
    assert "a+space" in words["go left and jump"]["keys"]
    assert mirrored(["go left", "go right"])
    assert not mirrored(["go left", "jump"])
    assert not mirrored(["jump"])
    assert unique(["a", "a", "a"]) == ["a", "a 2", "a 3"]


@pytest.fixture(scope="module")
def cartpole() -> Look:
    pytest.importorskip("pygame")
    return look("CartPole-v1", seconds=3)


def test_cartpole_is_looked_at(cartpole: Look) -> None:
    assert cartpole.env_options == {"render_mode": "rgb_array"}
    assert cartpole.picture == (400, 600)
    assert cartpole.actions == {"push left": 0, "push right": 1}
    assert cartpole.fps == 50
    assert cartpole.mirrors
    assert cartpole.frames_per_chunk == 4, "its episodes are short"
    assert max(cartpole.lengths) < 30


def test_every_entry_may_be_left_out(cartpole: Look, tmp_path: Path) -> None:
    text = world_yaml(cartpole, "pole")
    whole = yaml.safe_load(text)
    path = tmp_path / "pole.yaml"

    def read(values: Any) -> Any:
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return read_settings(path)

    full = read(whole)
    assert full.record.mirror == {"left": "right"}
    assert full.dynamics.chunks == clip_length(cartpole.lengths)
    assert full.sampler.history == full.dynamics.history
    assert all(len(line) <= 101 for line in text.splitlines())
    for section in whole:
        if section != "record":
            read({k: v for k, v in whole.items() if k != section})
        if not isinstance(whole[section], dict):
            continue
        for entry in whole[section]:
            if (section, entry) == ("record", "env"):
                continue
            rest = {k: v for k, v in whole[section].items() if k != entry}
            read({**whole, section: rest})
    least = read({"record": {"env": "CartPole-v1"}})
    assert list(least.record.actions) == ["push left", "push right"]


def test_actions_are_found_without_being_written(tmp_path: Path) -> None:
    made = propose_actions({"env": "toy:make()"})
    assert made == {"action 0": 0, "action 1": 1, "action 2": 2}
    with pytest.raises(ValueError, match="nothing_there"):
        propose_actions({"env": "toy:nothing_there()"})


def test_moves_of_a_grid_happen_once(tmp_path: Path) -> None:
    pytest.importorskip("minigrid")
    found = look("MiniGrid-Empty-8x8-v0", "minigrid", seconds=3)
    assert found.env == "minigrid:MiniGrid-Empty-8x8-v0"
    assert list(found.actions)[:3] == ["turn left", "turn right", "go forward"]
    once = found.actions["turn left"]
    assert once["controller"].endswith(":Once")
    assert once["options"] == {"action": 0, "then": 6, "chunk": 4}
    assert found.actions["do nothing"] == 6
    assert found.still < 0.9, "what a command does is seen within its chunk"


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pole.yaml"
    line = ["new-world", "CartPole-v1", "-o", str(path), "--seconds", "1"]
    assert cli.main(line) == 0
    told = capsys.readouterr()
    assert f"next: magi-world train-world {path} --check" in told.out
    assert read_settings(path).name == "pole"
    assert cli.main(line) == 2
    assert "--force overwrites it" in capsys.readouterr().err
    assert cli.main([*line, "--force"]) == 0
    for wrong, message in (
        (["new-world", "NoSuch-v0"], "NoSuch"),
        (["new-world", "CartPole-v1", "--module", "no_such_module"], "cannot be imported"),
    ):
        assert cli.main([*wrong, "-o", str(tmp_path / "new.yaml")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "new.yaml").exists()
