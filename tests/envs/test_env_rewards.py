"""Rewards: heads, functions, goals in words, sums."""

from __future__ import annotations

import pickle
import sys
import types
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from magi_world.envs import MagiWorldEnv, MagiWorldVectorEnv
from magi_world.envs.rewards import LearnedReward, Moment, NoReward, Score, TextGoal, make_reward
from magi_world.envs.text_goal import OpenClip
from tests.envs.worlds import Ends, brightness, fast_world, heads


def one_step(**options: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
    env = MagiWorldEnv(**{"world": fast_world(heads=heads()), **options})
    env.reset(seed=0)
    return env.step("turn left")


def test_learned_is_what_the_heads_say() -> None:
    env = MagiWorldEnv(fast_world(heads=heads()))
    env.reset(seed=0)
    _, reward, _, _, info = env.step("turn left")
    with torch.inference_mode():
        said = heads()(env.chunk.latents)
    assert reward == pytest.approx(said["reward"].item())
    for name, value in said["events"].items():
        assert info["events"][name] == pytest.approx(value.item())
    assert info["events"]["end"] == pytest.approx(said["end"].item())


@pytest.mark.parametrize(("bias", "ended"), [(-20.0, False), (20.0, True)])
def test_a_probable_end_terminates(bias: float, ended: bool) -> None:
    world = fast_world(heads=heads(bias))
    for reward in (None, "learned", LearnedReward(), LearnedReward(sample_end=True)):
        assert one_step(world=world, reward=reward)[2] is ended
    assert one_step(world=world, reward="none")[1:4] == (0.0, False, False)


def test_sampled_ends_come_as_often_as_predicted_and_again_with_the_seed() -> None:
    world = fast_world(heads=Ends(lambda x: torch.full((len(x),), 0.25)))
    runs = []
    for _ in range(2):
        envs = MagiWorldVectorEnv(40, world, reward=LearnedReward(sample_end=True))
        envs.reset(seed=0)
        runs.append(np.stack([envs.step(("turn left",) * 40)[2] for _ in range(5)]))
    np.testing.assert_array_equal(runs[0], runs[1])
    assert 0.15 < runs[0].mean() < 0.35


def test_a_world_without_heads_rewards_nothing() -> None:
    assert one_step(world=fast_world())[1:3] == (0.0, False)
    assert "rewards" not in one_step(world=fast_world())[4]
    with pytest.raises(ValueError, match="'tiny' has no reward heads"):
        MagiWorldEnv(fast_world(), reward=LearnedReward())


def test_a_function_sees_its_chunk_and_info() -> None:
    seen, reward, ended, _, info = one_step(reward=brightness)
    assert reward == pytest.approx(seen.mean() / 255)
    assert info["rewards"] == {"brightness": reward}
    assert ended is False


def test_a_function_may_do_without_pixels() -> None:
    def cheap(chunk: Any, info: dict[str, Any]) -> tuple[float, bool]:
        assert chunk.pixels is None
        return float(chunk.latents.mean()), False

    cheap.needs_pixels = False  # type: ignore[attr-defined]
    seen, reward, *_ = one_step(reward=cheap, observation="latent")
    assert reward == pytest.approx(seen.mean())


@pytest.mark.parametrize("result", [1.0, (1.0,), (float("nan"), False), ("x", True), (1.0, 0)])
def test_what_a_function_returns_is_checked(result: Any) -> None:
    with pytest.raises(ValueError, match=r"reward function <lambda> returned .*finite number"):
        one_step(reward=lambda chunk, info: result)


def test_the_environment_survives_a_failing_reward() -> None:
    fails = iter([True, False])
    env = MagiWorldEnv(
        fast_world(), reward=lambda c, i: 1 / 0 if next(fails) else (float(i["chunk"]), False)
    )
    env.reset(seed=0)
    with pytest.raises(ZeroDivisionError):
        env.step("turn left")
    assert env.step("turn left")[1] == 2.0


def test_rewards_add_up() -> None:
    learned = one_step(reward="learned")[1]
    bright = one_step(reward=brightness)[1]
    _, total, _, _, info = one_step(reward=["learned", brightness])
    assert total == pytest.approx(learned + bright)
    assert info["rewards"] == pytest.approx({"learned": learned, "brightness": bright})
    weighted = one_step(reward={"learned": 0.5, brightness: -2})[1]
    assert weighted == pytest.approx(0.5 * learned - 2 * bright)
    _, double, _, _, info = one_step(reward=[brightness, brightness])
    assert double == pytest.approx(2 * bright)
    assert set(info["rewards"]) == {"brightness", "brightness 2"}


def test_any_term_may_end_the_episode() -> None:
    def ends(chunk: Any, info: dict[str, Any]) -> tuple[float, bool]:
        return 0.0, True

    assert one_step(reward=["learned", ends])[2] is True


def test_an_object_that_scores_batches_is_a_reward() -> None:
    class Count:
        name, needs_pixels = "count", False

        def score(self, moment: Moment) -> Score:
            return Score(np.arange(3.0), np.array([False, True, False]))

    envs = MagiWorldVectorEnv(3, fast_world(), reward=Count())
    envs.reset(seed=0)
    _, rewards, ended, _, _ = envs.step(("turn left",) * 3)
    assert (rewards.tolist(), ended.tolist()) == ([0, 1, 2], [False, True, False])


@pytest.mark.parametrize("bad", ["best", "text:  ", [], {"none": "x"}, {"none": True}, 1, object()])
def test_bad_rewards_are_named(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"(reward|weight of a reward) is"):
        make_reward(bad, fast_world())
    assert isinstance(make_reward("none", fast_world()), NoReward)


class TinyClip(nn.Module):
    """The interface of an open_clip model, with random weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image = nn.Linear(3 * 16 * 16, 8)
        self.words = nn.Embedding(128, 8)

    def encode_image(self, pictures: Tensor) -> Tensor:
        return self.image(pictures.flatten(1))

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self.words(tokens).sum(1)


def preprocess(picture: Image.Image) -> Tensor:
    small = np.asarray(picture.resize((16, 16)), np.float32) / 255
    return torch.from_numpy(small).permute(2, 0, 1)


def tokenizer(texts: list[str]) -> Tensor:
    return torch.tensor([[ord(c) for c in text.ljust(20)[:20]] for text in texts])


def test_a_goal_in_words_is_a_cosine() -> None:
    clip = OpenClip(TinyClip(), preprocess, tokenizer)
    env = MagiWorldEnv(fast_world(), reward=TextGoal("a red door", clip))
    env.reset(seed=0)
    seen, reward, ended, _, info = env.step("turn left")
    model = TinyClip()
    image = model.encode_image(preprocess(Image.fromarray(seen[-1]))[None])[0]
    text = model.encode_text(tokenizer(["a red door"]))[0]
    assert reward == pytest.approx(torch.cosine_similarity(image, text, 0).item(), abs=1e-6)
    assert ended is False
    assert info["rewards"] == {"text:a red door": reward}
    for reached, ends in ((reward - 0.01, True), (reward + 0.01, False)):
        goal = TextGoal("a red door", clip, reached=reached)
        assert one_step(world=fast_world(), reward=goal)[2] is ends


def test_a_goal_scores_each_world_and_decodes_for_it() -> None:
    goal = TextGoal("a cat", OpenClip(TinyClip(), preprocess, tokenizer))
    envs = MagiWorldVectorEnv(2, fast_world(), observation="latent", reward=[goal, "none"])
    envs.reset(seed=0)
    together = envs.step(("turn left", "turn right"))[1]
    for seed, text, reward in zip((0, 1), ("turn left", "turn right"), together, strict=True):
        env = MagiWorldEnv(fast_world(), reward=goal)
        env.reset(seed=seed)
        assert env.step(text)[1] == pytest.approx(reward, abs=1e-6)
    assert pickle.loads(pickle.dumps(goal)).name == "text:a cat"


def test_text_loads_open_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def create(model: str, pretrained: str, device: Any) -> tuple[nn.Module, None, Any]:
        asked.update(model=model, pretrained=pretrained, device=str(device))
        return TinyClip(), None, preprocess

    fake = types.ModuleType("open_clip")
    fake.create_model_and_transforms = create  # type: ignore[attr-defined]
    fake.get_tokenizer = lambda model: tokenizer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "open_clip", fake)
    reward = one_step(world=fast_world(), reward="text: a red door ")[1]
    clip = OpenClip(TinyClip(), preprocess, tokenizer)
    assert reward == one_step(world=fast_world(), reward=TextGoal("a red door", clip))[1]
    assert asked == {"model": "ViT-B-32", "pretrained": "laion2b_s34b_b79k", "device": "cpu"}


def test_without_open_clip_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ImportError, match=r"pip install 'magi-world\[clip\]'"):
        MagiWorldEnv(fast_world(), reward="text:a red door")


def test_the_real_open_clip_with_random_weights() -> None:
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:  # torchvision of another torch build
        pytest.skip(f"open_clip cannot be imported: {error}")
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    torch.manual_seed(0)
    model = open_clip.CLIP(16, vision, text)
    transform = open_clip.image_transform(32, is_train=False)
    words = open_clip.SimpleTokenizer(context_length=16)
    goal = TextGoal("a red door", OpenClip(model, transform, words))
    reward = one_step(world=fast_world(), reward=goal)[1]
    assert -1 <= reward <= 1
    assert one_step(world=fast_world(), reward=goal)[1] == reward
