"""The transformer: precision of its parts, what depends on what."""

from __future__ import annotations

import pytest
import torch

from magi_world.config import DiTConfig
from magi_world.model.dit import DiT, Pass, parameter_dtype
from magi_world.model.layers import LayerNorm1p, Rope, full_width, rotate, settle
from tests.reference.forward import OwnCaption, TokenRanges
from tests.tiny import tiny_dit, tiny_parts

SIZE = (4, 6)


def run(dit: DiT, x: torch.Tensor, first: int = 0, **options: object) -> torch.Tensor:
    n, tokens = x.shape[1], x.shape[3] * SIZE[0] * SIZE[1] // 4
    frames = first + torch.arange(n * x.shape[3]).view(1, n, -1)
    own = TokenRanges([[i * tokens, (i + 1) * tokens] for i in range(n)])
    caption = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    text = OwnCaption([dit.text_keys(caption)] * n)
    with torch.no_grad():
        return dit(x, Pass(torch.full((1, n), 0.4), frames, own, text, **options))


def latents(chunks: int = 1) -> torch.Tensor:
    return torch.randn(1, chunks, 8, 2, *SIZE, generator=torch.Generator().manual_seed(3))


def test_output_has_the_shape_of_the_input() -> None:
    x = latents(3)
    assert run(tiny_dit(tiny_parts().config.dit), x).shape == x.shape


def test_duplicated_channels_keep_the_first_half() -> None:
    sizes = {"layers": 1, "hidden": 32, "ffn": 32, "heads": 4, "kv_groups": 2, "head_dim": 8}
    config = DiTConfig(**sizes, latent_channels=8, duplicate_channels=True, caption_channels=16)
    assert config.channels == 16
    assert run(tiny_dit(config), latents()).shape == latents().shape


def test_positions_are_relative_and_exact_after_days() -> None:
    """Only differences of frame indices matter, also at index 10^8 (a month at 24 fps)."""
    dit, x = tiny_dit(tiny_parts().config.dit), latents()
    torch.testing.assert_close(run(dit, x), run(dit, x, first=10**8), atol=2e-4, rtol=0)


def test_float32_angles_would_not_be_exact_after_days() -> None:
    """The reason why angles are formed in float64; without it the test above would fail."""
    rope = Rope(64)
    rope.bands.data = torch.linspace(0.1, 1, 8)
    far = 10**8 + 1
    sin, _ = rope(torch.tensor([[[far]]]), 1, 1)
    single = (torch.tensor(float(far)) * rope.bands).sin()
    double = (far * rope.bands.double()).sin().float()
    torch.testing.assert_close(sin[0, 0, 0, 0, :8], double)
    assert (single - double).abs().max() > 0.1


def test_condition_and_interval_matter() -> None:
    dit, x = tiny_dit(tiny_parts().config.dit), latents()
    base = run(dit, x)
    assert not torch.equal(base, run(dit, x, conditional=False))
    assert not torch.equal(base, run(dit, x, interval=4.0))
    assert not torch.equal(run(dit, x, interval=2.0), run(dit, x, interval=4.0))


@pytest.mark.parametrize(
    ("name", "stored", "expected"),
    [
        ("x_embedder.weight", "bfloat16", "float32"),
        ("rope.bands", "float32", "float32"),
        ("y_embedder.null_caption_embedding", "bfloat16", "float32"),
        ("videodit_blocks.layers.0.self_attention.q_layernorm.weight", "bfloat16", "float32"),
        ("videodit_blocks.layers.0.self_attention.q_layernorm_xattn.weight", "float32", "bfloat16"),
        ("videodit_blocks.layers.0.self_attention.linear_qkv.q.weight", "float32", "bfloat16"),
        ("videodit_blocks.layers.0.self_attention.linear_proj.weight", "float32", "float32"),
        ("videodit_blocks.layers.0.self_attention.linear_proj.weight", "bfloat16", "bfloat16"),
        ("videodit_blocks.layers.0.mlp.linear_fc1.weight", "float8_e4m3fn", "float8_e4m3fn"),
        ("videodit_blocks.layers.0.mlp.linear_fc2.smooth_scale", "float32", "float32"),
        ("videodit_blocks.layers.0.self_attn_post_norm.bias", "bfloat16", "float32"),
        ("videodit_blocks.layers.0.mlp.layer_norm.weight", "float32", "bfloat16"),
        ("videodit_blocks.final_layernorm.weight", "bfloat16", "float32"),
    ],
)
def test_precision_in_a_bfloat16_stream(name: str, stored: str, expected: str) -> None:
    got = parameter_dtype(name, getattr(torch, stored), torch.bfloat16)
    assert got == getattr(torch, expected)


def test_settled_weights_give_the_same_bytes() -> None:
    config = tiny_parts().config.dit
    plain, settled = tiny_dit(config), tiny_dit(config)
    names = {name: value.shape for name, value in plain.state_dict().items()}
    settle(settled)
    attention = settled.blocks[0].self_attention
    assert attention.linear_qkv.q.weight.stride() == (1, attention.linear_qkv.q.weight.shape[0])
    assert {name: value.shape for name, value in settled.state_dict().items()} == names
    x = latents(2)
    assert torch.equal(run(plain, x), run(settled, x))


def test_a_norm_in_training_is_not_settled() -> None:
    norm = LayerNorm1p(8, 1e-6)
    norm.requires_grad_(False)
    settle(norm)
    norm.requires_grad_(True)
    norm.weight.data += 1
    x = torch.randn(3, 8)
    torch.testing.assert_close(norm(x), 2 * torch.nn.functional.layer_norm(x, (8,), eps=1e-6))


def test_rotation_by_whole_rows_is_that_of_the_formula() -> None:
    rope, x = Rope(16), torch.randn(1, 2, 6, 3, 16)
    sin, cos = (y.detach() for y in rope(torch.arange(4).view(1, 2, 2), 1, 3))
    a, b, rest = x[..., :6], x[..., 6:12], x[..., 12:]
    expected = torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)
    assert torch.equal(rotate(x, full_width((sin, cos), 16)), expected)
