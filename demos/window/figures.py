"""The figures of the HUD, as text. Nothing here is rounded in anyone's favour."""

from __future__ import annotations

import torch

from magi_world.demos.window import jobs
from magi_world.demos.window.memory import resident
from magi_world.demos.window.player import Player

Row = tuple[str, str]


def figures(player: Player) -> list[tuple[str, list[Row]]]:
    """Groups of (label, value)."""
    opened, moment = player.opened, player.moment
    if opened is None or moment is None:
        return []
    spec, playback = opened.spec, player.playback
    pace = playback.pace
    p50, p95 = pace.latency(50), pace.latency(95)
    height, width = spec.frame_size
    done, total = player.runner.progress
    making = isinstance(player.runner.job, jobs.Step | jobs.Imagine)
    return [
        (
            "Pace",
            [
                ("world", f"{spec.fps:g} fps"),
                ("shown", f"{player.shown.fps(player.now):.1f} fps"),
                ("generated", _or_dash(pace.generated_fps, "{:.1f} fps")),
                ("chunk p50", _or_dash(p50, "{:.0f} ms", 1000)),
                ("chunk p95", _or_dash(p95, "{:.0f} ms", 1000)),
                ("command to picture", _or_dash(player.delay.last, "{:.2f} s")),
                ("its median", _or_dash(player.delay.median, "{:.2f} s")),
            ],
        ),
        (
            "Chunk",
            [
                ("shown", f"{moment.index}"),
                ("frame", f"{playback.frame_number + 1} / {len(moment.shown_frames)}"),
                ("next one", _next(player)),
                ("denoising", f"{done} / {total or opened.steps_per_chunk}" if making else "-"),
            ],
        ),
        (
            "World",
            [
                ("seed", f"{moment.seed}"),
                ("picture", f"{width} x {height}, {spec.frames_per_chunk} a chunk"),
                ("device", str(opened.world.device)),
                ("memory", memory(opened.world.device)),
                ("cache", _bytes(opened.world.cache_bytes)),
                ("rewind", f"{playback.timeline.position} of {len(playback.timeline) - 1}"),
            ],
        ),
    ]


def memory(device: torch.device) -> str:
    """Memory of this process, and on a GPU what its tensors take."""
    host = resident()
    parts = [] if host is None else [_bytes(host)]
    if device.type == "cuda":
        parts.append(f"{_bytes(torch.cuda.memory_allocated(device))} GPU")
    return ", ".join(parts) or "-"


def _next(player: Player) -> str:
    if player.playback.ahead is not None:
        return "ready"
    job = player.runner.job
    if isinstance(job, jobs.Step):
        return "late" if player.playback.stalled else "being made"
    return "stopped" if not player.playback.running else "not asked for yet"


def _or_dash(value: float | None, form: str, factor: float = 1) -> str:
    return "-" if value is None else form.format(value * factor)


def _bytes(count: int) -> str:
    if count >= 10 << 30:
        return f"{count / 2**30:.0f} GB"
    return f"{count / 2**30:.2f} GB" if count >= 1 << 30 else f"{count / 2**20:.0f} MB"
