"""MagiWorldEnv: how an episode begins, by seed, prompt, picture or film."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from magi_world.envs import MagiWorldEnv
from magi_world.io.media import VideoConfig, VideoWriter
from tests.envs.worlds import fast_world
from tests.tiny import tiny_world


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
