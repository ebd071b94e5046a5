"""A whole training of the toy as a YAML file, and a text table that stands in for model2vec's."""

from __future__ import annotations

from pathlib import Path

import torch
from toy import COMMANDS

from magi_world.model.dit import DiT
from magi_world.model.heads import Heads
from magi_world.model.static_text import StaticTextEncoder
from magi_world.model.vae import VAE
from magi_world.training.assemble import make_package
from magi_world.training.dynamics import start
from magi_world.training.settings import WorldTrainConfig
from tests.tiny import tiny_text

# Episodes of 80 chunks: the evaluation dreams 64 behind 4 real ones.
CONFIG = """
name: bar
seed: 3
fps: 24
starts: 2
start_chunks: 2
default_command: stay
record:
  env: toy:make()
  env_options: {most: 100000, age: 100000}
  frame_key: screen
  frame_size: [16, 16]
  chunks: 240
  chunks_per_shard: 80
  held_out_shards: 1
  max_chunks_per_episode: 80
  processes: 1
  seed: 4
  policy: toy:Roll
  actions: {stay: 0, go left: 1, go right: 2}
  events:
    hit: {key: hits, index: 0}
commands:
  stay: {keys: [s], phrases: [stay now], held_out: [stay then]}
  go left: {keys: [a], phrases: [left now], held_out: [left then]}
  go right: {keys: [d], phrases: [right now], held_out: [right then]}
text: {channels: 8}
codec:
  vae: {width: 48, depth: 1, heads: 4, latent_channels: 6, video_size: 16, video_length: 8,
        final_proj: true, scale_factor: 1.0}
  loop: {steps: 4, batch: 4, warmup: 1, ema: 0.5}
  decoder: {steps: 2, batch: 4, warmup: 1, ema: 0.5}
  compile: false
dynamics:
  dit: {layers: 2, hidden: 32, ffn: 64, heads: 4, kv_groups: 2, head_dim: 8, latent_channels: 6,
        caption_channels: 8, caption_length: 60}
  loop: {steps: 4, batch: 2, warmup: 1, ema: 0.5}
  chunks: 3
  history: 2
  autocast: false
  compile: false
distill:
  loop: {steps: 2, batch: 2, warmup: 1, ema: 0.5}
  num_steps: [4, 8]
heads:
  loop: {steps: 4, batch: 8, warmup: 1, ema: 0.5}
  events: [hit, death]
  reward: {hit: 1.0}
  end: death
  width: 8
classifier:
  loop: {steps: 4, batch: 8, warmup: 1, ema: 0.5}
  width: 8
evaluate: {clips: 2, worlds: 2, seconds: 2.0}
sampler: {num_steps: 4, window_size: 1, chunk_width: 2, passes: 1, distilled: true, kv_range: [3],
          clean_kv_range: 1, solo_weight: 0.0}
"""


def write_config(path: Path, *changes: tuple[str, str]) -> Path:
    """`CONFIG` as a file, with (old, new) replacements."""
    text = CONFIG
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text)
    return path


def write_text(folder: Path) -> StaticTextEncoder:
    """A text table that the configuration can work with, put where the text stage looks."""
    words = [f"{c} now then" for c in COMMANDS]
    return tiny_text(folder, words, channels=8)


def write_world(config: WorldTrainConfig, folder: Path, heads: Heads | None = None) -> Path:
    """A package of the configuration's sizes, with random weights."""
    torch.manual_seed(7)
    dit = DiT(config.dynamics.dit)
    start(dit, 7)
    torch.nn.init.normal_(dit.final_linear.linear.weight, std=0.3)
    text, starts = write_text(folder / "text"), torch.randn(2, 6, 4, 2, 2)
    return make_package(config, dit, VAE(config.codec.vae), text, starts, heads, folder / "bar")
