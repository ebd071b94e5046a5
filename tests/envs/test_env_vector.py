"""MagiWorldVectorEnv: equal to separate environments, autoreset, partial resets."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from magi_world.envs import MagiWorldEnv, MagiWorldVectorEnv
from tests.alike import assert_alike
from tests.envs.test_env_state import assert_same
from tests.envs.worlds import PLAN, Ends, brightness, fast_world, heads, sometimes, together
from tests.tiny import write_tiny_package

ID = "magi_world:MagiWorld-v0"


def separate(mode: AutoresetMode, **options: Any) -> SyncVectorEnv:
    world = fast_world(heads=Ends(sometimes))
    return SyncVectorEnv([lambda: MagiWorldEnv(world, **options)] * 3, autoreset_mode=mode)


def assert_equal_infos(one: Any, other: Any) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, dict):
            assert_equal_infos(value, other[key])
        else:
            assert value.dtype == other[key].dtype, key
            assert_alike(list(value), list(other[key]))


@pytest.mark.parametrize("observation", ["chunk", "latent"])
@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_a_batch_equals_gymnasiums_separate_environments(
    mode: AutoresetMode, observation: str
) -> None:
    options = {"observation": observation, "max_chunks": 4}
    envs = (separate(mode, **options), together(mode, **options))
    (one, info), (other, own) = (e.reset(seed=5) for e in envs)
    assert_alike(one, other)
    assert_equal_infos(info, own)
    ends = np.zeros(3, bool)
    for texts in PLAN * 2:
        theirs, ours = (e.step(texts) for e in envs)
        for a, b in zip(theirs[:4], ours[:4], strict=True):
            assert_alike(a, b)
            assert a.dtype == b.dtype
        assert_equal_infos(theirs[4], ours[4])
        ends |= ours[2]
    assert ends.any()  # heads ended some episodes


def test_disabled_autoreset_with_a_mask_equals_separate_environments() -> None:
    envs = (separate(AutoresetMode.DISABLED), together("DISABLED"))
    for env in envs:
        env.reset(seed=5)
    for texts in PLAN * 2:
        theirs, ours = (e.step(texts) for e in envs)
        for a, b in zip(theirs[:4], ours[:4], strict=True):
            assert_alike(a, b)
        over = ours[2] | ours[3]
        if over.any():
            with pytest.raises(ResetNeeded, match=r"worlds \[.*\] have ended"):
                envs[1].step(texts)
            (a, info), (b, own) = (e.reset(options={"reset_mask": over.copy()}) for e in envs)
            assert_alike(a, b)
            assert_equal_infos(info, own)


@pytest.mark.parametrize("start", [None, "text"])
def test_an_ended_world_touches_no_other(start: str | None) -> None:
    """World 1 ends in every chunk, or never; the others must not know."""

    def reward(chunk: Any, info: dict[str, Any]) -> tuple[float, bool]:
        return 0.0, chunk.prompts[0] == "turn right"

    runs = []
    for said in ("turn right", "turn left"):
        envs = MagiWorldVectorEnv(3, fast_world(), reward=reward, start=start)
        envs.reset(seed=7)
        steps = [envs.step(("turn left", said, "walk forward")) for _ in range(4)]
        assert [s[2].tolist() for s in steps] == [[False, said == "turn right", False]] * 4
        runs.append([s[0][[0, 2]].tobytes() for s in steps])
    assert runs[0] == runs[1]


def test_a_reset_by_mask_touches_no_other() -> None:
    runs = []
    for mask in (None, np.array([False, True, False])):
        envs = together("DISABLED", reward="none")
        envs.reset(seed=7)
        envs.step(PLAN[0])
        if mask is not None:
            _, infos = envs.reset(seed=[None, 99, None], options={"reset_mask": mask})
            assert infos["_seed"].tolist() == mask.tolist()
            assert infos["seed"][1] == 99
        runs.append([envs.step(texts)[0][[0, 2]].tobytes() for texts in PLAN])
    assert runs[0] == runs[1]


def test_same_step_gives_the_last_observation_and_the_first() -> None:
    envs = MagiWorldVectorEnv(2, fast_world(), max_chunks=2, reward="none")
    envs.reset(seed=0)
    envs.step(("turn left", "turn left"))
    alone = MagiWorldEnv(fast_world())
    alone.reset(seed=1)
    alone.step("turn left")
    seen, _, terminated, truncated, info = envs.step(("turn left", "turn right"))
    assert (terminated.tolist(), truncated.tolist()) == ([False] * 2, [True] * 2)
    np.testing.assert_array_equal(info["final_obs"][1], alone.step("turn right")[0])
    assert info["final_info"]["chunk"].tolist() == [2, 2]
    assert info["chunk"].tolist() == [0, 0]
    alone.reset(seed=int(info["seed"][1]))
    np.testing.assert_array_equal(seen[1], alone.shown_chunk().frames[0])


def test_make_vec_in_every_way(tmp_path: Path) -> None:
    package = str(write_tiny_package(tmp_path / "w"))
    seen = {}
    for mode in ("vector_entry_point", "sync", "async"):
        envs = gym.make_vec(ID, num_envs=2, vectorization_mode=mode, world=package)
        envs.reset(seed=3)
        seen[mode] = envs.step(("turn left", "a cat"))
        envs.close()
    assert isinstance(gym.make_vec(ID, num_envs=2, world=package), MagiWorldVectorEnv)
    for mode in ("sync", "async"):
        for a, b in zip(seen[mode][:4], seen["vector_entry_point"][:4], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.filterwarnings("error")
def test_make_vec_warns_of_nothing_and_declares_its_autoreset() -> None:
    for given in (AutoresetMode.NEXT_STEP, "NEXT_STEP", "NextStep"):
        envs = gym.make_vec(ID, num_envs=2, world=fast_world(), autoreset_mode=given)
        assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
        assert envs.autoreset_mode is AutoresetMode.NEXT_STEP
    assert together().autoreset_mode is AutoresetMode.SAME_STEP
    assert "autoreset_mode" not in MagiWorldVectorEnv.metadata
    envs = gym.make_vec(ID, num_envs=2, world=fast_world(), max_episode_steps=1)
    envs.reset(seed=0)
    assert envs.step(("turn left",) * 2)[3].all()


def test_torch_observations_stay_tensors() -> None:
    arrays, tensors = together(max_chunks=2), together(max_chunks=2, output="torch")
    a, b = arrays.reset(seed=0)[0], tensors.reset(seed=0)[0]
    for texts in PLAN[:3]:
        assert isinstance(b, torch.Tensor)
        assert b.device == tensors.world.device
        assert not b.is_inference()
        np.testing.assert_array_equal(a, b.numpy())
        (a, *rest, info), (b, *others, own) = arrays.step(texts), tensors.step(texts)
        for x, y in zip(rest, others, strict=True):
            assert isinstance(y, np.ndarray)
            np.testing.assert_array_equal(x, y)
        for x, y in zip(info.get("final_obs", ()), own.get("final_obs", ()), strict=True):
            assert (x is None and y is None) or (x == y.numpy()).all()
    b.add_(1)  # belongs to the user
    np.testing.assert_array_equal(arrays.step(PLAN[3])[0], tensors.step(PLAN[3])[0].numpy())


def test_each_world_has_its_own_seed_prompt_and_start() -> None:
    picture = np.full((32, 48, 3), 90, np.uint8)
    given = {"prompt": ["a cave", None, "the sea"], "start": [picture, "text", 2]}
    envs = MagiWorldVectorEnv(3, fast_world(), **given)
    seen, infos = envs.reset(seed=[4, 9, 2])
    assert infos["seed"].tolist() == [4, 9, 2]
    chunks = [seen, envs.step(PLAN[0])[0]]
    for row, seed in enumerate((4, 9, 2)):
        one = MagiWorldEnv(fast_world(), **{k: v[row] for k, v in given.items()})
        np.testing.assert_array_equal(one.reset(seed=seed)[0], chunks[0][row])
        np.testing.assert_array_equal(one.step(PLAN[0][row])[0], chunks[1][row])
    options = {"prompt": ["x", "y", "z"], "start": 1}
    envs.reset(seed=0, options=options)
    one.reset(seed=2, options={"prompt": "z", "start": 1})
    np.testing.assert_array_equal(envs.step(PLAN[0])[0][2], one.step(PLAN[0][2])[0])


@pytest.mark.parametrize("kind", ["deepcopy", "pickle", "file", "fork", "restore"])
def test_a_copy_goes_on_as_the_original(kind: str, tmp_path: Path) -> None:
    envs = together(max_chunks=3)
    envs.reset(seed=2)
    envs.step(PLAN[0])
    if kind == "deepcopy":
        other = copy.deepcopy(envs)
    elif kind == "pickle":
        other = pickle.loads(pickle.dumps(envs))
    elif kind == "fork":
        other = envs.fork(1)[0]
    else:
        other, state = together(max_chunks=3), envs.snapshot()
        state.save(tmp_path / "s.safetensors")
        other.restore(state if kind == "restore" else tmp_path / "s.safetensors")
    for texts in PLAN:
        ours, theirs = envs.step(texts), other.step(texts)
        assert_same(list(ours[:4]), list(theirs[:4]))
        assert_equal_infos(ours[4], theirs[4])


def test_one_worlds_snapshot_begins_all() -> None:
    one = MagiWorldEnv(fast_world())
    one.reset(seed=0)
    one.step("turn left")
    envs = MagiWorldVectorEnv(3, fast_world())
    _, infos = envs.reset(options={"snapshot": one.snapshot()})
    assert infos["chunk"].tolist() == [1, 1, 1]
    future = one.step("turn right")[0]
    for row in envs.step(("turn right",) * 3)[0]:
        assert_alike(row, future)
    mask = np.array([False, True, False])
    envs.reset(options={"snapshot": one.snapshot(), "reset_mask": mask})
    assert [info.steps for info in envs.world.snapshot().prompts] == [2, 2, 2]


def test_rewards_see_their_own_world() -> None:
    envs = MagiWorldVectorEnv(3, fast_world(), reward=brightness)
    envs.reset(seed=0)
    for _ in range(3):
        seen, rewards, terminated, _, infos = envs.step(PLAN[0])
        shown = infos.get("final_obs", seen)
        wanted = [float(row.mean()) / 255 for row in shown]
        np.testing.assert_allclose(rewards, wanted)
    assert terminated.all()


def test_renders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    envs = together(render_mode="rgb_array")
    seen, _ = envs.reset(seed=0)
    pictures = envs.render()
    assert isinstance(pictures, tuple)
    for picture, row in zip(pictures, seen, strict=True):
        np.testing.assert_array_equal(picture, row[-1])
    listed = together(render_mode="rgb_array_list")
    seen, _ = listed.reset(seed=0)
    np.testing.assert_array_equal(np.stack([np.stack(r) for r in listed.render()]), seen)
    window = together(render_mode="human")
    window.reset(seed=0)
    window.step(PLAN[0])
    assert window.render() is None
    window.close()


def test_seeds_are_drawn_per_world() -> None:
    envs = MagiWorldVectorEnv(2, fast_world(), max_chunks=1)
    envs.reset(seed=[5, 6])
    assert envs.np_random_seed == (5, 6)
    drawn = envs.step(("turn left",) * 2)[4]["seed"]
    for row, seed in enumerate((5, 6)):
        one = MagiWorldEnv(fast_world())
        one.reset(seed=seed)
        assert one.reset()[1]["seed"] == drawn[row]
    fixed = MagiWorldVectorEnv(2, fast_world(), max_chunks=1, seed=30)
    assert fixed.reset()[1]["seed"].tolist() == [30, 31]
    assert fixed.step(("turn left",) * 2)[4]["seed"].tolist() == [30, 31]


def test_predicted_events_reach_the_infos() -> None:
    envs = MagiWorldVectorEnv(2, fast_world(heads=heads()))
    envs.reset(seed=0)
    infos = envs.step(("turn left",) * 2)[4]
    assert infos["events"]["hit"].shape == (2,)
    assert infos["events"]["_died"].all()
    assert infos["rewards"]["learned"].dtype == np.float64
