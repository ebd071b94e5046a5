"""The one attention function: every backend equals the formula."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import magi_world.model.attention as module
from magi_world.model.attention import (
    FLASH,
    Setting,
    attention,
    check_backend,
    choice,
    installed,
    obstacle,
    settle_backend,
)
from tests.tiny import tiny_world

SHAPES = [(1, 5, 7, 4, 2, 8), (2, 33, 64, 6, 3, 16), (3, 1, 1, 8, 8, 8), (1, 16, 48, 8, 1, 24)]


def random_qkv(
    shape: tuple[int, ...], dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> list[torch.Tensor]:
    b, sq, sk, hq, hkv, d = shape
    generator = torch.Generator().manual_seed(sum(shape))
    shapes = ((b, sq, hq, d), (b, sk, hkv, d), (b, sk, hkv, d))
    return [torch.randn(s, generator=generator).to(device, dtype) for s in shapes]


@pytest.mark.parametrize("shape", SHAPES)
def test_sdpa_equals_formula(shape: tuple[int, ...]) -> None:
    q, k, v = random_qkv(shape)
    torch.testing.assert_close(attention(q, k, v), attention(q, k, v, "reference"))


def test_reads_slices_of_a_larger_buffer() -> None:
    q, k, v = random_qkv((2, 6, 20, 4, 2, 8))
    part = attention(q, k[:, 5:11], v[:, 5:11])
    whole = attention(q, k[:, 5:11].clone(), v[:, 5:11].clone(), "reference")
    torch.testing.assert_close(part, whole)


def test_query_heads_share_groups_in_order() -> None:
    q, k, v = random_qkv((1, 4, 9, 4, 2, 8))
    for head in range(4):
        own = attention(q[:, :, [head]], k[:, :, [head // 2]], v[:, :, [head // 2]], "reference")
        torch.testing.assert_close(attention(q, k, v)[:, :, [head]], own)


def test_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'xformers'.*sdpa"):
        check_backend("xformers")


@pytest.mark.skipif(any(map(installed, FLASH)), reason="flash-attn is installed")
def test_missing_flash_says_how_to_get_it() -> None:
    with pytest.raises(ValueError, match=r"magi-world\[flash\]"):
        check_backend("flash")


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["sdpa", "flash"])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_on_gpu(backend: str, head_dim: int) -> None:
    if backend == "flash" and not any(map(installed, FLASH)):
        pytest.skip("flash-attn is not installed")
    q, k, v = random_qkv((2, 96, 160, 8, 2, head_dim), torch.bfloat16, "cuda")
    got = attention(q, k, v, settle_backend(backend, Setting.of(q.device, q.dtype, head_dim)))
    torch.testing.assert_close(got, attention(q, k, v, "reference"), atol=2e-2, rtol=2e-2)


HOPPER = Setting(torch.device("cuda"), torch.bfloat16, 128, (9, 0))


def stand_in(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Empty modules of these names, as if the packages were installed."""
    for name in names:
        fake = types.ModuleType(name)
        fake.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        fake.__path__ = []
        monkeypatch.setitem(sys.modules, name, fake)


@pytest.mark.parametrize(
    ("modules", "kernel", "backend"),
    [
        (("flash_attn_2_cuda", "flash_attn"), "flash_attn", "flash2"),
        (("flash_attn_interface",), "flash_attn_interface", "flash3"),
        (("fa3_fwd_interface",), "fa3_fwd_interface", "flash3"),
        (("flash_attn", "flash_attn.cute"), "flash_attn.cute", "flash4"),
    ],
)
def test_flash_package_of_each_version_is_called_with_its_layout(
    modules: tuple[str, ...], kernel: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands in for a package that needs a GPU: same name, same arguments, the formula inside."""
    calls = []

    def flash_attn_func(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> object:
        calls.append((q.shape, k.shape))
        out = attention(q, k, v, "reference")
        return out if backend == "flash2" else (out, None)

    stand_in(monkeypatch, *modules)
    sys.modules[kernel].flash_attn_func = flash_attn_func
    module._flash_kernel.cache_clear()
    assert settle_backend("flash", HOPPER) == settle_backend(backend, HOPPER) == backend
    q, k, v = random_qkv(SHAPES[1])
    torch.testing.assert_close(attention(q, k, v, backend), attention(q, k, v))
    assert calls == [(q.shape, k.shape)]
    module._flash_kernel.cache_clear()


def test_auto_takes_what_is_made_for_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = replace(HOPPER, device=torch.device("cpu"), capability=None)
    assert settle_backend("auto", cpu) == settle_backend("auto", HOPPER) == "sdpa"
    assert "flash3 is out" in choice(HOPPER)[1]
    stand_in(monkeypatch, "flash_attn_interface", "flash_attn", "flash_attn.cute")
    assert settle_backend("auto", HOPPER) == "flash3"
    assert settle_backend("auto", replace(HOPPER, capability=(10, 0))) == "flash4"
    assert settle_backend("auto", replace(HOPPER, capability=(8, 0))) == "sdpa"
    assert settle_backend("auto", replace(HOPPER, dtype=torch.float32)) == "sdpa"
    assert settle_backend("auto", cpu) == "sdpa"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device": torch.device("cpu")}, "a GPU only"),
        ({"dtype": torch.float32}, "bfloat16, and the weights are float32"),
        ({"head_dim": 512}, "up to 256"),
        ({"capability": (8, 6)}, "this card has 8.6"),
    ],
)
def test_flash_is_refused_where_it_cannot_run(
    changes: dict, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, "flash_attn_interface")
    assert obstacle("flash3", HOPPER) is None
    for name in ("flash", "flash3"):
        with pytest.raises(ValueError, match=reason):
            settle_backend(name, replace(HOPPER, **changes))


def reference_ranges(
    q: Tensor, k: Tensor, v: Tensor, q_ranges: Tensor, k_ranges: Tensor
) -> tuple[Tensor, Tensor]:
    """The same as MagiAttention's kernel, by the formula: output and log-sum-exp (Tq, Hq)."""
    out = torch.zeros_like(q)
    lse = torch.full(q.shape[:2], -torch.inf, device=q.device)
    share = q.shape[1] // k.shape[1]
    for (a, b), (c, d) in zip(q_ranges.tolist(), k_ranges.tolist(), strict=True):
        keys, values = (x[c:d].float().repeat_interleave(share, dim=1) for x in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q[a:b].float(), keys) * q.shape[-1] ** -0.5
        out[a:b] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), values).to(q.dtype)
        lse[a:b] = scores.logsumexp(-1).t()
    return out, lse


def test_what_is_known_to_be_wrong_is_refused() -> None:
    with pytest.raises(ValueError, match="uninitialised"):
        check_backend("sageattention")


def test_ranges_equal_one_call_each() -> None:
    q, k, v = (x[0] for x in random_qkv((1, 12, 20, 4, 2, 8)))
    rows = torch.tensor([[0, 4], [8, 12], [4, 8]], dtype=torch.int32)
    keys = torch.tensor([[0, 20], [3, 5], [7, 19]], dtype=torch.int32)
    out, lse = reference_ranges(q, k, v, rows, keys)
    for (a, b), (c, d) in zip(rows.tolist(), keys.tolist(), strict=True):
        own = attention(q[None, a:b], k[None, c:d], v[None, c:d])[0]
        torch.testing.assert_close(out[a:b], own)
    assert torch.isfinite(lse).all()


@pytest.mark.parametrize("window", [1, 2])
def test_a_batch_in_one_call_equals_many(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Worlds of different histories and captions, by MagiAttention's kernel or its stand-in."""
    calls = []

    def kernel(*tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(tensors)
        assert all(r.dtype == torch.int32 for r in tensors[3:])
        return reference_ranges(*tensors)

    monkeypatch.setattr(module, "_ranges_kernel", lambda: kernel)
    worlds = [tiny_world(3, window_size=window) for _ in range(2)]
    guide = worlds[1]._stream.denoiser
    worlds[1]._stream.denoiser = replace(guide, backend="magi")
    for world in worlds:
        world.reset(seed=0)
        world.step("turn left")
        world.reset(seed=9, worlds=[1], start="text")
    said = ["turn left", "walk forward", "stand still"]
    many, one = (world.step(said).latents for world in worlds)
    torch.testing.assert_close(one, many, atol=1e-4, rtol=1e-4)
    some = (world.step("turn right", worlds=[0, 2]).latents for world in worlds)
    torch.testing.assert_close(*some, atol=1e-4, rtol=1e-4)
    assert calls
