"""Released models from a folder, end to end: weights, VAE, T5, special tokens, and then a world."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import magi_world
from magi_world.config import MagiConfig
from magi_world.io.read_released import Reading, read_released
from magi_world.io.released import PRESETS
from magi_world.model.text import save_captions
from magi_world.world.world import World
from tests.checkpoints import golden_case, write_dit, write_special_tokens, write_t5, write_vae
from tests.reference.released import config_from_released

CPU = torch.device("cpu")


def released_folder(root: Path, folder: str, weights: str) -> Path:
    write_dit(root / "4.5B" / folder, weights)
    write_vae(root / "vae")
    write_t5(root / "t5" / "t5-v1_1-xxl")
    write_special_tokens(root / "special_tokens.npz")
    return root


def tiny_config(case: str, name: str) -> MagiConfig:
    released = golden_case(case)["config"]
    if "distill" in name:
        released["runtime_config"]["cfg_number"] = 1
    config = config_from_released(released, name)
    vae = replace(config.vae, width=64, depth=2, heads=2, mlp_ratio=2, final_proj=True)
    return replace(config, vae=vae, frame_size=(48, 64))


@pytest.fixture
def distilled(tmp_path: Path) -> Path:
    return released_folder(tmp_path / "w", "inference_weight.distill", "weights_gelu")


def test_distilled_model_streams_from_its_folder(distilled: Path) -> None:
    config = tiny_config("sampler_distill_window1", "magi-1-4.5b-distill")
    world = World(read_released(config, distilled, CPU))
    world.reset(seed=1, prompt="a dog runs", start="text")
    chunk = world.step("turn left")
    assert chunk.frames.shape == (1, 24, 48, 64, 3)
    state = world.snapshot()
    left = world.step("turn left").latents
    world.restore(state)
    assert not torch.equal(left, world.step("stop now").latents)


def test_saved_captions_stand_in_for_t5(distilled: Path, tmp_path: Path) -> None:
    config = tiny_config("sampler_distill_window1", "magi-1-4.5b-distill")
    with_t5 = World(read_released(config, distilled, CPU))
    prompts = ("a dog runs", "a dog runs turn left")
    encoder = with_t5.parts.text.encoder.encoder  # the T5 below the cache and the special tokens
    file = tmp_path / "captions.safetensors"
    save_captions(file, {p: encoder.encode(p) for p in prompts})
    (distilled / "t5" / "t5-v1_1-xxl" / "pytorch_model.bin.index.json").unlink()
    without = World(read_released(config, distilled, CPU, Reading(captions=file)))
    frames = []
    for world in (with_t5, without):
        world.reset(seed=1, prompt="a dog runs", start="text")
        frames.append(world.step("turn left").frames)
    np.testing.assert_array_equal(*frames)
    with pytest.raises(ValueError, match="a dog runs"):
        without.step("fly to the moon")
    assert without.step("turn left").frames.shape == (1, 24, 48, 64, 3)


def test_fp8_model_streams(tmp_path: Path) -> None:
    root = released_folder(tmp_path / "w", "inference_weight.fp8.distill", "weights_fp8")
    config = tiny_config("forward_fp8", "magi-1-4.5b-distill-fp8")
    world = World(read_released(config, root, CPU))
    world.reset(seed=0, prompt="a dog", start="text")
    assert world.parts.dit.dtype == torch.bfloat16
    assert world.step("walk forward").frames.shape == (1, 24, 48, 64, 3)


def test_load_world_by_preset_name(distilled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config("sampler_distill_window1", "magi-1-4.5b-distill")
    monkeypatch.setitem(PRESETS, "magi-1-4.5b-distill", config)
    world = magi_world.load_world(
        "magi-1-4.5b-distill", weights=distilled, device="cpu", num_steps=4, frame_size=(32, 32)
    )
    world.reset(prompt="a dog", start="text")
    assert world.step("turn left").frames.shape == (1, 24, 32, 32, 3)


def test_missing_transformer_is_named_before_anything_loads(distilled: Path) -> None:
    config = tiny_config("sampler_t2v_base", "magi-1-4.5b-base")
    with pytest.raises(FileNotFoundError, match="inference_weight"):
        read_released(config, distilled, CPU)


@pytest.mark.weights
@pytest.mark.gpu
def test_real_weights(request: pytest.FixtureRequest) -> None:
    """pytest -m weights --weights DIR"""
    folder = request.config.getoption("--weights")
    world = magi_world.load_world("magi-1-4.5b-distill", weights=folder, frame_size=(256, 256))
    world.reset(prompt="a calm sea at dawn", start="text")
    assert world.step("waves roll in").frames.std() > 5


def test_importing_works_where_nobody_is_at_home() -> None:
    program = (
        "import pathlib\n"
        "def nobody(*_): raise RuntimeError('Could not determine home directory.')\n"
        "pathlib.Path.home = pathlib.Path.expanduser = nobody\n"
        "import magi_world; from magi_world.loading import list_worlds; print(list_worlds())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_options_of_the_prompt_reach_the_transformer(
    distilled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config("sampler_distill_window1", "magi-1-4.5b-distill")
    monkeypatch.setitem(PRESETS, config.name, config)
    asked: list[str] = []
    world = magi_world.load_world(
        config.name,
        weights=distilled,
        device="cpu",
        num_steps=4,
        frame_size=(32, 32),
        dtype="bfloat16",
        text_dtype="float32",
        prompt_tokens={"static_first_frames": True, "model_3d": True, "negative": True},
        enhance=lambda prompt: asked.append(prompt) or f"{prompt} now",
    )
    printed = capsys.readouterr().err
    assert "transformer" in printed[: printed.index("at most")]
    world.reset(prompt="a dog", start="text")
    world.step("turn left")
    assert len(asked) == len(set(asked)) > 0
    encoder = world.parts.text
    while hasattr(encoder, "encoder"):
        encoder = encoder.encoder
    assert encoder.model.dtype == torch.float32
    # write_special_tokens numbers the rows: duration 8, 3-D model, HQ, static first frames.
    features = world.parts.text.encode("a dog turn left")
    assert features[:4, 0].tolist() == [14, 15, 1, 2]
    null = world._stream.null.features
    assert null is not None
    assert len(null) == 50
    assert torch.equal(null[:4], world.parts.null_front)
    plain = magi_world.load_world(
        config.name, weights=distilled, device="cpu", num_steps=4, frame_size=(32, 32)
    )
    assert plain._stream.null.features is None
    unlike = [w._stream.null.layers[0][0] for w in (world, plain)]
    assert not torch.equal(unlike[0].float(), unlike[1].float())
    torch.testing.assert_close(null[4:], plain.parts.dit.y_embedder.null_caption_embedding[:46])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offload": "all"}, "weights are on cpu"),
        ({"offload": "everything"}, "must be None, 'text' or 'all'"),
        ({"prompt_tokens": {"sepia": True}}, "prompt_tokens is"),
    ],
)
def test_options_that_cannot_be_are_refused(
    options: dict, message: str, distilled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config("sampler_distill_window1", "magi-1-4.5b-distill")
    monkeypatch.setitem(PRESETS, config.name, config)
    with pytest.raises(ValueError, match=message):
        magi_world.load_world(config.name, weights=distilled, device="cpu", **options)
    with pytest.raises(ValueError, match=f"{next(iter(options))} is for magi-1"):
        magi_world.load_world(magi_world.list_worlds()[0], **options)


@pytest.mark.skipif(
    torch.__version__ < "2.13", reason="older releases of torch import their compiler by themselves"
)
def test_loading_and_stepping_need_no_compiler() -> None:
    """torch's takes seconds to import, which nobody should wait for who does not use it."""
    code = (
        "import sys, magi_world;"
        "world = magi_world.load_world(magi_world.list_worlds()[0]);"
        "world.reset(seed=0); world.step().frames;"
        "print([m for m in ('torch._dynamo', 'torch._inductor', 'sympy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.split() == ["[]"]
