"""What a world's configuration need not say: every section has defaults, which fit what is given.

They make a small world of 64x64 pixels that plays on a CPU. What is not here either has a default
in its dataclass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from magi_world.training.wording import worded

TEXT_CHANNELS = 96
LATENT_CHANNELS = 64
HISTORY = 4  # clean chunks that a chunk sees
CLIP = 8  # chunks of a training clip
PATCH_LENGTH = 4  # frames in one latent frame


def _at(values: Any, *path: str) -> Any:
    """What lies at ``path``, or None."""
    for name in path:
        values = values.get(name) if isinstance(values, Mapping) else None
    return values


def _or(value: Any, kind: type, other: Any) -> Any:
    """``value`` if it is a sensible one of ``kind``; the checks name what is not."""
    return value if isinstance(value, kind) and not isinstance(value, bool) and value else other


def patch_length(frames: int) -> int:
    """Frames in one latent frame: the most, up to 4, that divides a chunk."""
    return max(n for n in range(1, PATCH_LENGTH + 1) if frames % n == 0)


def loop(steps: int, batch: int, muon: float, adam: float, ema: float) -> dict[str, Any]:
    """How a stage is optimised."""
    return {
        "steps": steps,
        "batch": batch,
        "muon_lr": muon,
        "adam_lr": adam,
        "warmup": max(1, min(60, steps // 20)),
        "decay": 0.7,
        "ema": ema,
    }


def default_sections(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The defaults of every section, for a file with ``values`` whose name is ``name``."""
    actions = _or(_at(values, "record", "actions"), Mapping, {})
    commands = [str(c) for c in actions]
    frames = _or(_at(values, "record", "frames_per_chunk"), int, 8)
    size = _or(_at(values, "record", "frame_size"), list, [64, 64])
    side = max((s for s in size if isinstance(s, int)), default=64)
    patch = _or(_at(values, "codec", "vae", "patch_length"), int, patch_length(frames))
    given_vae, given_dit = _at(values, "codec", "vae"), _at(values, "dynamics", "dit")
    latent = _or(_at(given_vae, "latent_channels"), int, None) or _or(
        _at(given_dit, "latent_channels"), int, LATENT_CHANNELS
    )
    words = _or(_at(values, "text", "channels"), int, TEXT_CHANNELS)
    history = _or(_at(values, "dynamics", "history"), int, HISTORY)
    events = [str(e) for e in _or(_at(values, "record", "events"), Mapping, {})]
    death = _or(_at(values, "heads", "death"), str, "death")
    predicted = _or(_at(values, "heads", "events"), list, [death])
    return {
        "name": name,
        "record": {"actions": actions},
        "commands": worded(commands),
        "text": {"channels": TEXT_CHANNELS, "pieces": 9000},
        "codec": {
            "vae": {
                "width": 192,
                "depth": 3,
                "heads": 6,
                "latent_channels": latent,
                "patch_length": patch,
                "video_size": side,
                "video_length": frames,
                "final_proj": True,
                "scale_factor": 1.0,
            },
            "loop": loop(400, 16, 0.002, 0.0003, 0.98),
            "decoder": loop(300, 16, 0.001, 0.0001, 0.98),
        },
        "dynamics": {
            "dit": {
                "layers": 6,
                "hidden": 256,
                "ffn": 1024,
                "heads": 8,
                "kv_groups": 8,
                "head_dim": 32,
                "latent_channels": latent,
                "caption_channels": words,
                "caption_length": 64,
                "prediction": "clean",
                "condition": "caption",
            },
            "loop": {**loop(6000, 4, 0.004, 0.001, 0.995), "decay": 0.3},
            "chunks": CLIP,
            "copies": 3,
            "until": 0.9375,  # where the last of 16 steps begins
            "history": HISTORY,
        },
        "distill": {"loop": loop(400, 4, 0.001, 0.0003, 0.99), "num_steps": [4, 8]},
        "heads": {
            "loop": loop(800, 128, 0.001, 0.001, 0.98),
            "events": [*events, death],
            "reward": "environment",
            "end": death if death in predicted else "",
        },
        "classifier": {"loop": loop(400, 64, 0.002, 0.002, 0.98)},
        "sampler": {
            "num_steps": 4,
            "window_size": 1,
            "chunk_width": max(1, frames // patch),
            "passes": 1,
            "distilled": True,
            "kv_range": [history + 1],
            "clean_kv_range": 1,
            "solo_weight": 0.0,
        },
    }
