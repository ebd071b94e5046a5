"""A tiny world with random weights, of MAGI's architecture, for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor

from magi_world.config import DiTConfig, MagiConfig, SamplerConfig, VAEConfig
from magi_world.io.package import write_package
from magi_world.io.safetensors_io import save_tensors
from magi_world.model.dit import DiT
from magi_world.model.static_text import StaticTextEncoder
from magi_world.model.vae import VAE
from magi_world.world.parts import WorldParts
from magi_world.world.spec import Command, WorldSpec
from magi_world.world.world import World

FRAME_SIZE = (32, 48)
COMMANDS = ("stand still", "turn left", "turn right", "walk forward")


class HashText:
    """Text features that depend on the words and on nothing else."""

    channels = 16

    def encode(self, prompt: str) -> Tensor:
        """(words, 16)."""
        seeds = [hashlib.blake2b(w.encode(), digest_size=4).digest() for w in prompt.split()]
        rows = [
            torch.randn(16, generator=torch.Generator().manual_seed(int.from_bytes(s, "little")))
            for s in seeds
        ]
        return torch.stack(rows)


def tiny_dit(config: DiTConfig, seed: int = 0) -> DiT:
    """Random weights that let everything matter: gates open, norms and bands spread."""
    dit = DiT(config)
    generator = torch.Generator().manual_seed(seed)
    for name, value in dit.named_parameters():
        scale = 0.3 if "bands" in name or "norm" in name else 1.2 * value[0].numel() ** -0.5
        value.data = torch.randn(value.shape, generator=generator) * scale
    return dit.requires_grad_(False)


def tiny_parts(
    window_size: int = 1,
    num_steps: int = 4,
    passes: int = 1,
    distilled: bool = True,
    num_starts: int = 3,
    kv_range: tuple[int, ...] = (3, 2),
    clean_kv_range: int = 1,
) -> WorldParts:
    """Two layers, 32 wide, 32x48 pixels, chunks of 8 frames, history of two chunks."""
    vae_config = VAEConfig(
        width=32,
        depth=1,
        heads=2,
        mlp_ratio=2,
        latent_channels=8,
        video_size=32,
        video_length=8,
        final_proj=True,
        scale_factor=1.0,
    )
    dit_config = DiTConfig(
        layers=2,
        hidden=32,
        ffn=48,
        heads=4,
        kv_groups=2,
        head_dim=8,
        latent_channels=8,
        caption_channels=16,
        caption_length=50,
    )
    sampler = SamplerConfig(
        num_steps=num_steps,
        window_size=window_size,
        chunk_width=2,
        passes=passes,
        distilled=distilled,
        kv_range=kv_range,
        clean_kv_range=clean_kv_range,
    )
    config = MagiConfig(
        "tiny", dit_config, vae_config, sampler, FRAME_SIZE, fps=16, dtype="float32"
    )
    generator = torch.Generator().manual_seed(7)
    starts = torch.randn((max(num_starts, 1), 8, 4, 4, 6), generator=generator)
    keys = ((), ("left",), ("right",), ("up",))
    spec = WorldSpec(
        name="tiny",
        frame_size=FRAME_SIZE,
        frames_per_chunk=config.frames_per_chunk,
        fps=config.fps,
        commands=tuple(Command(c, keys=k) for c, k in zip(COMMANDS, keys, strict=True)),
        default_command=COMMANDS[0],
        fingerprint="tiny",
        num_starts=num_starts,
    )
    torch.manual_seed(0)
    vae = VAE(vae_config).requires_grad_(False)
    return WorldParts(
        spec=spec,
        config=config,
        dit=tiny_dit(dit_config),
        vae=vae,
        text=HashText(),
        starts=starts if num_starts else None,
    )


def tiny_text(
    folder: Path, commands: Sequence[str] = COMMANDS, channels: int = 16
) -> StaticTextEncoder:
    """A static text encoder of the shipped kind, over a few words, kept in ``folder``."""
    words = sorted({w for c in commands for w in c.split()} | {"go", "cave", "the", "to"})
    vocabulary = {w: i for i, w in enumerate(["[UNK]", *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    generator = torch.Generator().manual_seed(5)
    features = torch.randn(len(vocabulary), channels, generator=generator)
    save_tensors(folder / "features.safetensors", {"features": features})
    return StaticTextEncoder(folder)


def write_tiny_package(folder: Path, **options: int) -> Path:
    """`tiny_parts` as a world package, with a static text encoder, in float32."""
    text = tiny_text(folder / "text")
    write_package(folder, replace(tiny_parts(**options), text=text), torch.float32)
    return folder


def tiny_world(num_worlds: int = 1, window_size: int = 1, **options: int) -> World:
    """A `World` of `tiny_parts`."""
    return World(tiny_parts(window_size=window_size, **options), num_worlds)
