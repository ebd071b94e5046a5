"""The environments in the hands of what people use: Gymnasium's wrappers and learning libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import FrameStackObservation, RecordEpisodeStatistics, TimeLimit
from gymnasium.wrappers.vector import RecordEpisodeStatistics as VectorStatistics
from torch import nn

from magi_world.envs import MagiWorldEnv, MagiWorldVectorEnv
from magi_world.envs.wrappers import (
    ChunkToImage,
    DiscreteCommands,
    VectorChunkToImage,
    VectorDiscreteCommands,
)
from tests.envs.worlds import Ends, brightness, fast_world, heads, sometimes
from tests.tiny import COMMANDS, write_tiny_package


def batch(count: int = 2, **options: Any) -> Any:
    """Vector environment as learning code wants it: numbers in, pictures out."""
    envs = MagiWorldVectorEnv(count, fast_world(heads=Ends(sometimes)), max_chunks=4, **options)
    return VectorChunkToImage(VectorDiscreteCommands(envs), 2)


def test_gymnasiums_wrappers() -> None:
    env = gym.make(
        "magi_world:MagiWorld-v0", world=fast_world(), reward=brightness, max_episode_steps=2
    )
    assert isinstance(env, TimeLimit)
    env = RecordEpisodeStatistics(FrameStackObservation(env, 3))
    seen, _ = env.reset(seed=0)
    assert seen.shape == (3, 8, 32, 48, 3)
    total = env.step("turn left")[1]
    seen, reward, _, truncated, info = env.step("turn left")
    assert truncated
    assert info["episode"]["r"] == pytest.approx(total + reward)
    assert info["episode"]["l"] == 2
    assert (seen[1] != seen[2]).any()


def test_gymnasiums_vector_statistics() -> None:
    envs = VectorStatistics(MagiWorldVectorEnv(2, fast_world(), max_chunks=2, reward=brightness))
    envs.reset(seed=0)
    total = envs.step(("turn left",) * 2)[1]
    _, rewards, _, truncated, infos = envs.step(("turn left",) * 2)
    assert truncated.all()
    np.testing.assert_allclose(infos["episode"]["r"], total + rewards)


@pytest.mark.filterwarnings("ignore:.*Overwriting existing videos")
def test_gymnasiums_own_recorder(tmp_path: Path) -> None:
    pytest.importorskip("moviepy", reason="gymnasium's RecordVideo needs moviepy")
    env = MagiWorldEnv(fast_world(), render_mode="rgb_array", max_chunks=2)
    with gym.wrappers.RecordVideo(env, str(tmp_path)) as recorder:
        recorder.reset(seed=0)
        recorder.step("turn left")
    assert list(tmp_path.glob("*.mp4"))


def test_a_cleanrl_style_loop_learns_nothing_wrong() -> None:
    """Policy gradient with values over (steps, worlds), the way single-file code writes it."""
    torch.manual_seed(0)
    envs = batch(3)
    shape = envs.single_observation_space.shape
    net = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 16), nn.Tanh())
    actor, critic = nn.Linear(16, int(envs.single_action_space.n)), nn.Linear(16, 1)
    optimizer = torch.optim.Adam([*net.parameters(), *actor.parameters(), *critic.parameters()])
    seen, _ = envs.reset(seed=1)
    done, before = torch.zeros(3), [p.detach().clone() for p in net.parameters()]
    for _ in range(2):
        logs, values, rewards, dones = [], [], [], []
        for _ in range(6):
            hidden = net(torch.as_tensor(seen, dtype=torch.float32) / 255)
            choice = torch.distributions.Categorical(logits=actor(hidden))
            action = choice.sample()
            seen, reward, terminated, truncated, infos = envs.step(action.numpy())
            done = torch.as_tensor(terminated | truncated, dtype=torch.float32)
            assert ("final_obs" in infos) == bool(done.any())
            logs.append(choice.log_prob(action))
            values.append(critic(hidden)[:, 0])
            rewards.append(torch.as_tensor(reward, dtype=torch.float32))
            dones.append(done)
        after, advantages = torch.zeros(3), []
        for reward, over in zip(reversed(rewards), reversed(dones), strict=True):
            after = reward + 0.9 * after * (1 - over)
            advantages.insert(0, after)
        target, value = torch.stack(advantages), torch.stack(values)
        loss = (value - target).pow(2).mean()
        loss = loss - (torch.stack(logs) * (target - value).detach()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.isfinite(loss)
    assert any((p != q).any() for p, q in zip(net.parameters(), before, strict=True))


def test_stable_baselines3_learns_and_saves(tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3", reason="needs the extra sb3")
    from stable_baselines3 import PPO
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecMonitor

    from magi_world.envs.sb3 import SB3VecEnv

    envs = VecMonitor(SB3VecEnv(batch(2)))
    policy = {"net_arch": [16]}
    options = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, "seed": 0, "policy_kwargs": policy}
    agent = PPO("MlpPolicy", envs, device="cpu", **options)
    agent.learn(48)
    assert agent.num_timesteps == 48
    assert len(agent.ep_info_buffer) > 3
    agent.save(tmp_path / "agent")
    again = PPO.load(tmp_path / "agent", env=SB3VecEnv(batch(2)), device="cpu")
    mean, _ = evaluate_policy(again, SB3VecEnv(batch(1)), n_eval_episodes=2, warn=False)
    assert np.isfinite(mean)


def test_stable_baselines3_makes_it_by_name(tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3", reason="needs the extra sb3")
    from stable_baselines3 import DQN, PPO
    from stable_baselines3.common.env_util import make_vec_env

    package = str(write_tiny_package(tmp_path / "w"))
    options = {"world": package, "actions": "discrete", "observation": "image", "max_chunks": 3}
    envs = make_vec_env("magi_world:MagiWorld-v0", 2, env_kwargs=options, seed=0)
    small = {"net_arch": [16]}
    ppo = PPO("MlpPolicy", envs, n_steps=4, batch_size=8, n_epochs=1, policy_kwargs=small)
    ppo.learn(16)
    assert len(ppo.ep_info_buffer) >= 4
    one = gym.make("magi_world:MagiWorld-v0", **options)
    dqn = DQN("MlpPolicy", one, buffer_size=20, learning_starts=2, policy_kwargs=small)
    dqn.learn(8)
    assert dqn.num_timesteps == 8


def test_the_adapter_takes_a_batch_made_by_name(tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3", reason="needs the extra sb3")
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecMonitor

    from magi_world.envs.sb3 import SB3VecEnv

    envs = gym.make_vec(
        "magi_world:MagiWorld-v0", num_envs=2, world=str(write_tiny_package(tmp_path / "w")),
        actions="discrete", observation="image", max_chunks=3,
    )  # fmt: skip
    agent = PPO("MlpPolicy", VecMonitor(SB3VecEnv(envs)), n_steps=4, batch_size=8, n_epochs=1)
    agent.learn(16)
    assert len(agent.ep_info_buffer) >= 4


def test_diamonds_loop(tmp_path: Path) -> None:
    """Its collector takes tensors on one device, floats -1 .. 1, and looks at the ends together."""
    envs = gym.make_vec(
        "magi_world:MagiWorld-v0", num_envs=2, world=str(write_tiny_package(tmp_path / "w")),
        actions="discrete", observation="image", frames=1, output="torch", max_chunks=2,
    )  # fmt: skip
    seen, _ = envs.reset(seed=[3, 4])
    for step in range(3):
        obs = seen.permute(0, 3, 1, 2).float() / 127.5 - 1
        assert obs.shape == (2, 3, 32, 48)
        seen, reward, end, cut, info = envs.step(torch.tensor([step, 1]))
        dead = torch.as_tensor(end | cut)
        if dead.any():
            final = torch.stack([info["final_obs"][i] for i in range(2) if dead[i]])
            assert final.shape == (2, 32, 48, 3)
            assert (final != seen).any()
    assert torch.as_tensor(reward).shape == (2,)


def test_lerobots_loop() -> None:
    """What its `rollout` asks of a vector environment."""
    options = {"max_chunks": 3, "render_mode": "rgb_array", "observation": "frame"}
    envs = MagiWorldVectorEnv(2, fast_world(), autoreset_mode="NEXT_STEP", **options)
    seen, _ = envs.reset(seed=[5, 6], options={"lerobot_new_rollout": True})
    most = envs.call("_max_episode_steps")[0]
    done, step = np.zeros(2, bool), 0
    frames = [np.stack(envs.call("render"))]
    while not done.all() and step < most:
        task = list(envs.call("task_description"))
        assert [type(t) for t in task] == [str, str]
        assert torch.from_numpy(seen).shape == (2, 32, 48, 3)
        seen, _, terminated, truncated, info = envs.step(("turn left", "turn right"))
        assert "final_info" not in info
        done |= terminated | truncated
        frames.append(np.stack(envs.call("render")))
        step += 1
    assert (step, done.tolist()) == (3, [True, True])
    assert envs.unwrapped.metadata["render_fps"] >= 1


@pytest.mark.parametrize(
    "name", ["GrayscaleObservation", "ResizeObservation", "RescaleObservation"]
)
def test_gymnasiums_vector_observation_wrappers_want_next_step(name: str) -> None:
    import gymnasium.wrappers.vector as wrappers

    given = {
        "GrayscaleObservation": {"keep_dim": False},
        "ResizeObservation": {"shape": (16, 24)},
        "RescaleObservation": {"min_obs": np.float32(0), "max_obs": np.float32(1)},
    }[name]
    if name == "ResizeObservation":
        pytest.importorskip("cv2", reason="Gymnasium resizes with OpenCV")
    wrapper = getattr(wrappers, name)

    def make(mode: str) -> Any:
        world = fast_world()
        return MagiWorldVectorEnv(
            2, world, observation="frame", actions="discrete", max_chunks=2, autoreset_mode=mode
        )

    with pytest.raises((ValueError, AssertionError)):  # Gymnasium 1.2.0 asserts without a word
        wrapper(make("SAME_STEP"), **given)
    envs = wrapper(make("NEXT_STEP"), **given)
    envs.reset(seed=0)
    for _ in range(4):
        seen = envs.step([1, 2])[0]
    assert seen in envs.observation_space


def test_gymnasiums_array_wrapper_takes_numbers() -> None:
    pytest.importorskip("array_api_compat", reason="needs gymnasium[array-api]")
    from gymnasium.wrappers import NumpyToTorch
    from gymnasium.wrappers.vector import NumpyToTorch as VectorNumpyToTorch

    one = NumpyToTorch(MagiWorldEnv(fast_world(), actions="discrete", observation="image"))
    seen, info = one.reset(seed=0)
    seen, _, _, _, info = one.step(torch.tensor(1))
    assert isinstance(seen, torch.Tensor)
    assert int(info["command"]) == 1
    many = VectorNumpyToTorch(
        MagiWorldVectorEnv(2, fast_world(), actions="discrete", autoreset_mode="NEXT_STEP")
    )
    many.reset(seed=0)
    assert many.step(torch.tensor([1, 2]))[4]["command"].tolist() == [1, 2]


def test_the_sb3_adapter_translates_ends() -> None:
    pytest.importorskip("stable_baselines3", reason="needs the extra sb3")
    from magi_world.envs.sb3 import SB3VecEnv

    plain, envs = batch(3), SB3VecEnv(batch(3, render_mode="rgb_array"))
    envs.seed(5)
    np.testing.assert_array_equal(plain.reset(seed=5)[0], envs.reset())
    kinds = set()
    for _ in range(10):
        actions = np.array([1, 2, 3])
        seen, rewards, terminated, truncated, infos = plain.step(actions)
        ours = envs.step(actions)
        np.testing.assert_array_equal(seen, ours[0])
        np.testing.assert_allclose(rewards, ours[1], rtol=1e-6)
        np.testing.assert_array_equal(terminated | truncated, ours[2])
        for row, info in enumerate(ours[3]):
            over = bool(terminated[row] or truncated[row])
            assert info["TimeLimit.truncated"] == (truncated[row] and not terminated[row])
            assert ("terminal_observation" in info) == over
            kinds.add((bool(terminated[row]), bool(truncated[row])))
            if over:
                np.testing.assert_array_equal(info["terminal_observation"], infos["final_obs"][row])
                assert info["chunk"] == infos["final_info"]["chunk"][row]
                assert envs.reset_infos[row]["chunk"] == 0
    assert {(True, False), (False, True)} <= kinds
    assert envs.get_attr("render_mode") == ["rgb_array"] * 3
    assert envs.env_is_wrapped(VectorChunkToImage) == [True] * 3
    assert envs.env_is_wrapped(TimeLimit, [0]) == [False]
    assert [image.shape for image in envs.get_images()] == [(32, 48, 3)] * 3
    assert envs.env_method("snapshot")[0].num_worlds == 3
    envs.set_options({"start": "text"})
    envs.reset()
    envs.close()


@pytest.mark.parametrize(
    ("envs", "message"),
    [
        (lambda: MagiWorldEnv(fast_world()), "it must be a vector environment"),
        (lambda: MagiWorldVectorEnv(2, fast_world()), "wrap the environment in VectorDiscrete"),
        (lambda: batch(2, autoreset_mode="NEXT_STEP"), "needs 'SAME_STEP'"),
    ],
)
def test_the_sb3_adapter_refuses_what_it_cannot_run(envs: Any, message: str) -> None:
    pytest.importorskip("stable_baselines3", reason="needs the extra sb3")
    from magi_world.envs.sb3 import SB3VecEnv

    with pytest.raises(ValueError, match=message):
        SB3VecEnv(envs())


def test_torchrl_wraps_one_and_many() -> None:
    envs = pytest.importorskip("torchrl.envs", reason="needs the extra torchrl")
    one = envs.GymWrapper(ChunkToImage(DiscreteCommands(MagiWorldEnv(fast_world(), max_chunks=3))))
    one.set_seed(0)
    roll = one.rollout(10)
    assert roll["next", "done"].flatten().tolist() == [False, False, True]
    assert roll["observation"].shape == (3, 32, 48, 12)


def test_torchrl_resets_what_ended_in_a_batch() -> None:
    envs = pytest.importorskip("torchrl.envs", reason="needs the extra torchrl")
    many = envs.GymWrapper(batch(2, autoreset_mode="DISABLED"))
    many.set_seed(0)
    torch.manual_seed(0)
    roll = many.rollout(8, break_when_any_done=False)
    plain = batch(2, autoreset_mode="DISABLED")
    plain.reset(seed=0)  # what set_seed does; the rollout begins with a reset of its own
    seen, resets = plain.reset()[0], 0
    for step in range(8):
        np.testing.assert_array_equal(roll["observation"][:, step].numpy(), seen)
        seen, rewards, ended, cut, _ = plain.step(roll["action"][:, step].argmax(-1))
        np.testing.assert_array_equal(roll["next", "observation"][:, step].numpy(), seen)
        np.testing.assert_allclose(roll["next", "reward"][:, step, 0], rewards, rtol=1e-6)
        np.testing.assert_array_equal(roll["next", "terminated"][:, step, 0], ended)
        if (ended | cut).any():
            seen, resets = plain.reset(options={"reset_mask": ended | cut})[0], resets + 1
    assert resets > 1


def test_torchrl_says_commands_and_not_a_string(tmp_path: Path) -> None:
    envs = pytest.importorskip("torchrl.envs", reason="needs the extra torchrl")
    package = str(write_tiny_package(tmp_path / "w"))
    torch.manual_seed(0)
    for env in (
        envs.GymEnv("magi_world:MagiWorld-v0", world=package, observation="frame"),
        envs.GymWrapper(MagiWorldEnv(package, observation="frame")),
    ):
        envs.check_env_specs(env)
        said = set(env.rollout(12)["action"])
        assert len(said) > 1
        assert said <= set(COMMANDS)
        state = env.reset()
        state["action"] = "a dragon"
        assert env.step(state)["action"] == "a dragon"


@pytest.mark.parametrize("num_envs", [0, 2])
def test_torchrl_makes_numbers_and_pictures_by_name(tmp_path: Path, num_envs: int) -> None:
    envs = pytest.importorskip("torchrl.envs", reason="needs the extra torchrl")
    env = envs.GymEnv(
        "magi_world:MagiWorld-v0", num_envs=num_envs, actions="discrete", observation="image",
        world=str(write_tiny_package(tmp_path / "w")), max_chunks=2,
    )  # fmt: skip
    envs.check_env_specs(env)
    roll = env.rollout(5, break_when_any_done=False)
    batch = (num_envs,) if num_envs else ()
    assert roll["action"].shape == (*batch, 5, 4)
    assert roll["next", "observation"].shape[-3:] == (32, 48, 12)
    assert roll["next", "done"].sum() >= 2 * max(1, num_envs)
    env.close()


def test_minari_records_and_replays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari", reason="needs the extra minari")
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    package = str(write_tiny_package(tmp_path / "w"))
    env = gym.make("magi_world:MagiWorld-v0", world=package, observation="frame", max_chunks=3)
    env.action_space.seed(0)
    buffers = []
    for seed in (4, 9):
        seen, over = [env.reset(seed=seed)[0]], False
        actions: list[str] = []
        rewards, ends, cuts = [], [], []
        while not over:
            actions.append(env.action_space.sample())
            frame, reward, terminated, truncated, _ = env.step(actions[-1])
            over = terminated or truncated
            for column, value in ((rewards, reward), (ends, terminated), (cuts, truncated)):
                column.append(value)
            seen.append(frame)
        buffers.append(
            EpisodeBuffer(
                seed=seed, observations=seen, actions=actions, rewards=rewards,
                terminations=ends, truncations=cuts,
            )
        )  # fmt: skip
    minari.create_dataset_from_buffers(
        "magi/tiny-v0", buffers, env, algorithm_name="random", author="test",
        author_email="-", code_permalink="-", description="-", eval_env=env, jpeg_encoding=False,
    )  # fmt: skip
    dataset = minari.load_dataset("magi/tiny-v0")
    assert dataset.total_steps == 6
    again = dataset.recover_environment()
    for episode, seed in zip(dataset.iterate_episodes(), (4, 9), strict=True):
        assert set(episode.actions) <= set(again.unwrapped.action_space.commands)
        seen = [again.reset(seed=seed)[0]]
        seen += [again.step(action)[0] for action in episode.actions]
        np.testing.assert_array_equal(np.stack(seen), episode.observations)


def test_minari_collects_with_infos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari", reason="needs the extra minari")
    pytest.importorskip("jax", reason="Minari's collector needs minari[create]")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    package = str(write_tiny_package(tmp_path / "w"))
    env = minari.DataCollector(
        gym.make("magi_world:MagiWorld-v0", world=package, observation="frame", max_chunks=3),
        record_infos=True,
    )
    env.action_space.seed(0)
    for seed in (1, 2):
        env.reset(seed=seed)
        over = False
        while not over:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            over = terminated or truncated
    dataset = env.create_dataset(
        "magi/infos-v0", algorithm_name="random", author="test",
        author_email="-", code_permalink="-", description="-",
    )  # fmt: skip
    first, _ = dataset.iterate_episodes()
    assert list(first.infos["chunk"]) == [0, 1, 2, 3]
    assert list(first.infos["seed"]) == [1] * 4


def test_learned_heads_and_statistics_together() -> None:
    envs = VectorStatistics(MagiWorldVectorEnv(2, fast_world(heads=heads(9.0))))
    envs.reset(seed=0)
    _, rewards, terminated, _, infos = envs.step(("turn left",) * 2)
    assert terminated.all()
    np.testing.assert_allclose(infos["episode"]["r"], rewards)
