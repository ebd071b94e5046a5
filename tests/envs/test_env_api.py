"""MagiWorldEnv: the Gymnasium contract, seeds, observations, options, ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.utils.env_checker import check_env
from PIL import Image

from magi_world.chunk import Chunk
from magi_world.envs import MagiWorldEnv
from magi_world.media import VideoConfig, VideoWriter
from magi_world.world import World
from tests.envs.worlds import Ends, brightness, fast_world, heads, sometimes
from tests.tiny import tiny_world, write_tiny_package

ID = "magi_world:MagiWorld-v0"


@pytest.fixture(autouse=True)
def _no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("observation", ["chunk", "frame", "latent"])
@pytest.mark.parametrize("render_mode", [None, "human", "rgb_array", "rgb_array_list"])
def test_check_env_has_nothing_to_say(observation: str, render_mode: str | None) -> None:
    world = fast_world(heads=heads())
    env = gym.make(ID, world=world, observation=observation, render_mode=render_mode)
    check_env(env.unwrapped)  # builds every declared render mode, too


@pytest.mark.filterwarnings("error")
def test_check_env_by_name_and_with_the_passive_checker(tmp_path: Path) -> None:
    env = gym.make(ID, world=write_tiny_package(tmp_path / "w"), max_chunks=5)
    check_env(env.unwrapped, skip_render_check=True)
    env.reset(seed=0)
    for _ in range(5):
        env.step(env.action_space.sample())


def test_importing_registers_and_loads_no_torch() -> None:
    code = "import sys, magi_world, gymnasium; gymnasium.spec('MagiWorld-v0'); "
    code += "assert 'torch' not in sys.modules and 'pygame' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_seed_is_the_worlds_seed() -> None:
    env, world = MagiWorldEnv(fast_world()), tiny_world()
    seen, info = env.reset(seed=41)
    np.testing.assert_array_equal(seen, world.reset(seed=41).frames[0])
    assert info["seed"] == 41
    np.testing.assert_array_equal(env.step("turn left")[0], world.step("turn left").frames[0])


def test_resets_without_a_seed_go_on_from_the_first() -> None:
    env = MagiWorldEnv(fast_world())
    runs = []
    for _ in range(2):
        env.reset(seed=3)
        runs.append([env.reset()[1]["seed"] for _ in range(3)])
    assert runs[0] == runs[1]
    assert len({3, *runs[0]}) == 4


def test_a_fixed_seed_repeats_the_episode() -> None:
    env = MagiWorldEnv(fast_world(), seed=9)
    first, second = env.reset()[0], env.reset()[0]
    np.testing.assert_array_equal(first, second)
    assert env.reset(seed=4)[1]["seed"] == 4


def test_observations_are_the_same_world() -> None:
    kinds = {k: MagiWorldEnv(fast_world(), observation=k) for k in ("chunk", "frame", "latent")}
    decoder = tiny_world()
    for act in (lambda e: e.reset(seed=1)[0], lambda e: e.step("walk forward")[0]):
        seen = {k: act(e) for k, e in kinds.items()}
        np.testing.assert_array_equal(seen["chunk"][-1], seen["frame"])
        latents = torch.from_numpy(seen["latent"])[None]
        chunk = decoder.decode(Chunk(latents, (0,), ("",), (0,), (0,)))
        np.testing.assert_array_equal(chunk.frames[0], seen["chunk"])
        assert all(seen[kind] in env.observation_space for kind, env in kinds.items())


def test_latents_are_not_decoded_unless_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = World.decode
    monkeypatch.setattr(World, "decode", lambda self, c: (calls.append(1), original(self, c))[1])
    env = MagiWorldEnv(fast_world(heads=heads()), observation="latent", render_mode="rgb_array")
    env.reset(seed=0)
    calls.clear()
    env.step("turn left")
    assert calls == []
    picture = env.render()
    env.render()
    assert len(calls) == 1
    np.testing.assert_array_equal(picture, env.shown_chunk().frames[0, -1])


def test_observations_belong_to_the_user() -> None:
    env = MagiWorldEnv(fast_world(), render_mode="rgb_array")
    first, _ = env.reset(seed=2)
    kept, picture = first.copy(), env.render()
    first[:] = 0
    np.testing.assert_array_equal(env.render(), picture)
    np.testing.assert_array_equal(env.reset(seed=2)[0], kept)


def test_the_horizon_truncates_and_a_reset_goes_on() -> None:
    env = MagiWorldEnv(fast_world(), max_chunks=2, reward="none")
    env.reset(seed=0)
    assert env.step("turn left")[2:4] == (False, False)
    assert env.step("turn left")[2:4] == (False, True)
    with pytest.raises(ResetNeeded, match="the episode has ended"):
        env.step("turn left")
    env.reset()
    assert env.step("turn left")[2:4] == (False, False)


def test_a_predicted_end_terminates() -> None:
    env = MagiWorldEnv(fast_world(heads=Ends(sometimes)))
    env.reset(seed=0)
    for _ in range(20):
        _, _, terminated, truncated, info = env.step("turn left")
        assert truncated is False
        assert terminated is (info["events"]["end"] >= 0.5)
        if terminated:
            break
    assert terminated


def test_info_says_what_happened() -> None:
    env = MagiWorldEnv(fast_world(heads=heads()))
    _, info = env.reset(seed=5)
    assert info == {"chunk": 0, "prompt": "stand still", "lands": 0, "skip": 0, "seed": 5}
    info = env.step("turn left")[4]
    assert {k: info[k] for k in ("chunk", "prompt", "lands", "skip")} == {
        "chunk": 1, "prompt": "turn left", "lands": 1, "skip": 0,
    }  # fmt: skip
    assert set(info["events"]) == {"hit", "died", "end"}
    assert info["rewards"].keys() == {"learned"}
    assert env.step("turn left")[4]["lands"] == 1


def test_steering_by_queue_lands_later() -> None:
    lands = {}
    for steer in ("now", "queue"):
        env = MagiWorldEnv(fast_world(window_size=2), steer=steer)
        env.reset(seed=0)
        env.step("turn left")
        lands[steer] = env.step("turn right")[4]["lands"]
    assert lands == {"now": 2, "queue": 3}


def test_any_text_is_an_action() -> None:
    env = MagiWorldEnv(fast_world())
    outcomes = []
    for text in ("a dragon lands on the roof", "a cat"):
        env.reset(seed=0)
        seen, _, _, _, info = env.step(text)
        assert info["prompt"] == text
        outcomes.append(seen)
    assert (outcomes[0] != outcomes[1]).any()


def test_sampled_actions_are_commands_and_reach_all_of_them() -> None:
    env = MagiWorldEnv(fast_world())
    env.action_space.seed(0)
    drawn = [env.action_space.sample() for _ in range(60)]
    assert set(drawn) == set(env.world.spec.command_names)
    env.action_space.seed(0)
    assert drawn == [env.action_space.sample() for _ in range(60)]
    only = np.array([0, 1, 0, 0], np.int8)
    assert {env.action_space.sample(mask=only) for _ in range(9)} == {"turn left"}
    with pytest.raises(ValueError, match="not all 0"):
        env.action_space.sample(mask=only * 0)
    with pytest.raises(ValueError, match="one of them"):
        env.action_space.sample(mask=only, probability=only)


BAD_ACTIONS = [
    (3, "DiscreteCommands wrapper takes numbers"),
    (None, "it must be a str"),
    (b"turn left", "it must be a str"),
    (["turn left"], "it must be a str"),
    ("", "must say something"),
    ("   ", "must say something"),
    ("x" * 1025, "has 1,025 characters"),
    ("tourne à gauche", "with 'à'; it must be printable ASCII"),
    ("turn\nleft", r"with '\\n'; it must be printable ASCII"),
]


@pytest.mark.parametrize(("action", "message"), BAD_ACTIONS)
def test_bad_actions_are_named_and_change_nothing(action: object, message: str) -> None:
    env, twin = MagiWorldEnv(fast_world()), MagiWorldEnv(fast_world())
    env.reset(seed=0)
    twin.reset(seed=0)
    assert action not in env.action_space
    with pytest.raises(ValueError, match=message):
        env.step(action)
    np.testing.assert_array_equal(env.step("turn left")[0], twin.step("turn left")[0])


BAD_ARGUMENTS = [
    ({"world": 3}, "world is 3, a int; it must be a name"),
    ({"world": "no-such-world"}, "there is no world 'no-such-world'"),
    ({"observation": "pixels"}, "observation is 'pixels'; it must be one of 'chunk', 'frame'"),
    ({"reward": 3.0}, "reward is 3.0; it must be 'learned'"),
    ({"reward": "learned"}, "has no reward heads"),
    ({"reward": "text:"}, "reward is 'text:'"),
    ({"max_chunks": 0}, "max_chunks is 0; it must be a whole number from 1"),
    ({"max_chunks": True}, "max_chunks is True"),
    ({"prompt": 3}, "prompt is 3"),
    ({"prompt": " "}, "must say something"),
    ({"start": 99}, "start is 99; it must be a number 0 .. 2, 'text'"),
    ({"start": True}, "start is True"),
    ({"start": np.zeros(3, np.uint8)}, r"start has shape \(3,\)"),
    ({"start": np.zeros((4, 4, 3))}, "start: frames are float64"),
    ({"seed": -1}, "seed is -1"),
    ({"steer": "later"}, "steer is 'later'; it must be one of 'now', 'queue'"),
    ({"render_mode": "ascii"}, "render_mode is 'ascii'"),
    ({"num_steps": 2}, "num_steps is 2, but world is a World"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MagiWorldEnv(**{"world": fast_world(), **arguments})


def test_arguments_of_loading_reach_the_world(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path / "w")
    env = MagiWorldEnv(str(package), num_steps=2, window_size=2, noise_scale=0.5)
    sampler = env.world.parts.config.sampler
    assert (sampler.num_steps, sampler.window_size) == (2, 2)
    env.reset(seed=0)
    env.step("turn left")
    with pytest.raises(ValueError, match="weights is for"):
        MagiWorldEnv(package, weights=tmp_path)
    with pytest.raises(ValueError, match="needs weights=DIR"):
        MagiWorldEnv("magi-1-4.5b-distill")


def test_missing_and_broken_start_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"image .*nowhere\.png does not exist"):
        MagiWorldEnv(fast_world(), start=tmp_path / "nowhere.png")
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    with pytest.raises(ValueError, match=r"broken\.mp4 cannot be read"):
        MagiWorldEnv(fast_world(), start=str(tmp_path / "broken.mp4"))


def test_starts_from_files_arrays_and_text(tmp_path: Path) -> None:
    film = np.random.default_rng(0).integers(0, 256, (12, 48, 48, 3), dtype=np.uint8)
    Image.fromarray(film[0]).save(tmp_path / "a.png")
    with VideoWriter(tmp_path / "a.mp4", VideoConfig(16, (48, 48), upscale=1)) as writer:
        writer.write(film)
    env = MagiWorldEnv(fast_world(), start=tmp_path / "a.png")
    own = {"constructor": env.reset(seed=0)[0]}
    for options in (
        {"image": tmp_path / "a.png"},
        {"image": film[0]},
        {"start": film[0]},
        {"video": str(tmp_path / "a.mp4")},
        {"start": film},
        {"start": 1},
        {"start": "text"},
    ):
        seen, info = env.reset(seed=0, options=options)
        assert seen.shape == (8, 32, 48, 3)
        assert info["chunk"] == 0
        own[f"{next(iter(options))} {str(next(iter(options.values())))[:20]}"] = seen
    pictures = list(own.values())
    for same in pictures[1:4]:
        np.testing.assert_array_equal(pictures[0], same)
    for i, one in enumerate(pictures[3:]):
        assert not any((one == other).all() for other in pictures[4 + i :])
    np.testing.assert_array_equal(pictures[0], env.reset(seed=0)[0])  # options are for one episode


def test_a_prompt_is_the_scene_of_its_episode() -> None:
    env = MagiWorldEnv(fast_world(), prompt="a cave")
    runs = {}
    for name, options in (
        ("own", None),
        ("same", {"prompt": "a cave"}),
        ("new", {"prompt": "sea"}),
    ):
        env.reset(seed=0, options=options)
        runs[name] = env.step("turn left")[0]
    np.testing.assert_array_equal(runs["own"], runs["same"])
    assert (runs["own"] != runs["new"]).any()


BAD_OPTIONS = [
    ({"scene": "x"}, "options has 'scene'; it may have prompt, start, image, video, snapshot"),
    ([1], r"options is \[1\]; it must be a dict"),
    ({"prompt": 4}, "prompt is 4"),
    ({"start": 7}, "start is 7"),
    ({"image": 7}, "image is 7, a int"),
    ({"video": np.zeros((4, 4, 3), np.uint8)}, r"video has shape \(4, 4, 3\)"),
    ({"image": np.zeros((4, 4, 4, 3), np.uint8)}, r"image has shape \(4, 4, 4, 3\)"),
    ({"start": 1, "image": np.zeros((4, 4, 3), np.uint8)}, "options has start and image"),
    ({"snapshot": 3}, "snapshot is a int"),
    ({"reset_mask": np.ones(1, bool)}, "options has 'reset_mask'"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_bad_options_are_named_and_the_episode_goes_on(options: object, message: str) -> None:
    env, twin = MagiWorldEnv(fast_world()), MagiWorldEnv(fast_world())
    env.reset(seed=0)
    twin.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.reset(seed=1, options=options)
    np.testing.assert_array_equal(env.step("turn left")[0], twin.step("turn left")[0])
    assert env.reset()[1]["seed"] == twin.reset()[1]["seed"]


def test_order_of_calls() -> None:
    env = MagiWorldEnv(fast_world(), render_mode="rgb_array")
    with pytest.raises(ResetNeeded, match="before the first reset"):
        env.step("turn left")
    with pytest.raises(ResetNeeded, match=r"call reset\(\) first"):
        env.render()
    env.reset(seed=0)
    env.close()
    env.close()
    for call in (env.reset, env.render, env.snapshot, lambda: env.step("x"), lambda: env.fork(1)):
        with pytest.raises(ClosedEnvironmentError, match="was closed"):
            call()


def test_renders() -> None:
    last = MagiWorldEnv(fast_world(), render_mode="rgb_array")
    every = MagiWorldEnv(fast_world(), render_mode="rgb_array_list")
    seen, _ = last.reset(seed=0)
    every.reset(seed=0)
    np.testing.assert_array_equal(last.render(), seen[-1])
    np.testing.assert_array_equal(np.stack(every.render()), seen)
    assert last.metadata["render_fps"] == 100_000 // 8
    assert every.metadata["render_fps"] == 100_000
    assert MagiWorldEnv(tiny_world()).metadata["render_fps"] == 2
    silent = MagiWorldEnv(fast_world())
    silent.reset(seed=0)
    with pytest.warns(UserWarning, match="without a render_mode"):
        assert silent.render() is None


def test_stats_count_and_stay_out_of_info() -> None:
    env = MagiWorldEnv(fast_world(), reward=brightness)
    env.reset(seed=0)
    env.step("turn left")
    env.step("turn left")
    stats = env.stats
    assert (stats.resets, stats.steps, stats.chunks, stats.frames) == (1, 2, 2, 16)
    assert 0 < stats.last_step_seconds < stats.step_seconds
    assert stats.frames_per_second == pytest.approx(16 / stats.step_seconds)


def test_keys_are_those_of_the_commands() -> None:
    env = MagiWorldEnv(fast_world())
    named = {"left": "turn left", "right": "turn right", "up": "walk forward"}
    assert env.metadata["keys"] == named
    left, right, up = 1073741904, 1073741903, 1073741906
    assert env.get_keys_to_action() == {
        (left,): "turn left", (right,): "turn right", (up,): "walk forward",
    }  # fmt: skip
