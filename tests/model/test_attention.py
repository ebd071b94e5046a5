"""The one attention function: every backend equals the formula."""

from __future__ import annotations

import importlib.machinery
import sys
import types

import pytest
import torch

import magi_world.model.attention as module
from magi_world.model.attention import attention, check_backend, flash_version

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


@pytest.mark.skipif(flash_version() is not None, reason="flash-attn is installed")
def test_missing_flash_says_how_to_get_it() -> None:
    with pytest.raises(ValueError, match=r"magi-world\[flash\]"):
        check_backend("flash")


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["sdpa", "flash"])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_on_gpu(backend: str, head_dim: int) -> None:
    if backend == "flash" and flash_version() is None:
        pytest.skip("flash-attn is not installed")
    q, k, v = random_qkv((2, 96, 160, 8, 2, head_dim), torch.bfloat16, "cuda")
    got = attention(q, k, v, check_backend(backend))
    torch.testing.assert_close(got, attention(q, k, v, "reference"), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(
    ("modules", "kernel", "version"),
    [
        (("flash_attn_2_cuda", "flash_attn"), "flash_attn", 2),
        (("flash_attn_interface",), "flash_attn_interface", 3),
        (("flash_attn", "flash_attn.cute"), "flash_attn.cute", 4),
    ],
)
def test_flash_package_of_each_version_is_called_with_its_layout(
    modules: tuple[str, ...], kernel: str, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands in for a package that needs a GPU: same name, same arguments, the formula inside."""
    calls = []

    def flash_attn_func(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> object:
        calls.append((q.shape, k.shape))
        out = attention(q, k, v, "reference")
        return (out, None) if version > 2 else out

    for name in modules:
        fake = types.ModuleType(name)
        fake.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        fake.__path__ = []
        monkeypatch.setitem(sys.modules, name, fake)
    sys.modules[kernel].flash_attn_func = flash_attn_func
    module._flash_kernel.cache_clear()
    assert flash_version() == version
    q, k, v = random_qkv(SHAPES[1])
    torch.testing.assert_close(attention(q, k, v, check_backend("flash")), attention(q, k, v))
    assert calls == [(q.shape, k.shape)]
    module._flash_kernel.cache_clear()
