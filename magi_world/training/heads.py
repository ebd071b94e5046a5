"""The heads: events of a chunk from its latents, and whether they see in dreams what happened.

To judge them on dreams, the last few chunks before a held-out target are dreamed under the commands
that were really held, behind real history, and what the heads say of the dreamed target is compared
with what really happened in it, and with what they say of its real latents. A dream that goes
another way than the simulator counts against the heads here: the figures are a lower bound of what
they can do, and say which threshold suits dreams.

Legend: N chunks of the recording, n targets, E events, B worlds dreamed in one batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from magi_world.config import require
from magi_world.model.heads import Heads, HeadsConfig
from magi_world.model.vae import frames_to_video
from magi_world.training.data import ChunkDataset, LatentDataset
from magi_world.training.loop import LoopConfig, train
from magi_world.training.rollout import begin, filled, history_of
from magi_world.world.world import World

ENVIRONMENT = "environment"  # heads.reward: the simulator's own


@dataclass(frozen=True)
class FitHeadsConfig:
    """What is predicted of a chunk.

    events: of the recorded events and ``death``, the name given to the end of an episode; none of
    them, and no reward of the environment: the world has no heads. reward: event -> what one
    occurrence is worth (others 0), or "environment": the simulator's own, summed over the chunk;
    end: event that ends an episode; noise: largest share of noise mixed into the latents, because
    dreamed ones are never quite clean; chunks: how many of the recording are used; seen: how many
    chunks are looked at, 2 to see what changed since the one before (`HeadsConfig.chunks`).

    Raises:
        ValueError: a reward or end for an event that is not predicted.
    """

    loop: LoopConfig
    events: tuple[str, ...] = ()
    reward: Mapping[str, float] | str = field(default_factory=dict)
    end: str = ""
    death: str = "death"
    width: int = 64
    noise: float = 0.1
    chunks: int = 8000
    seen: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.reward, str) and self.reward != ENVIRONMENT:
            raise ValueError(
                f"heads.reward is {self.reward!r}; it must be {ENVIRONMENT!r} or event: worth"
            )
        known = self.predicted
        if unknown := sorted(set(self.worth) - set(known)):
            raise ValueError(
                f"heads.reward names {unknown}; it may name what heads.events predicts, "
                f"{list(known)}"
            )
        if self.end not in ("", *known):
            raise ValueError(
                f"heads.end is {self.end!r}; it must be '' or one of what heads.events predicts, "
                f"{list(known)}"
            )

    @property
    def worth(self) -> Mapping[str, float]:
        """Event -> reward; empty where the reward is the environment's."""
        return {} if isinstance(self.reward, str) else self.reward

    @property
    def from_environment(self) -> bool:
        """Whether the simulator's own reward is learned."""
        return self.reward == ENVIRONMENT

    @property
    def predicted(self) -> tuple[str, ...]:
        """The events that heads tell; a reward alone comes with the end of the episode."""
        return self.events or ((self.death,) if self.from_environment else ())


def labels(config: FitHeadsConfig, data: ChunkDataset, recorded: Sequence[str]) -> Tensor:
    """(N, E) float, 1 where the event happened in the chunk.

    Raises:
        ValueError: an event that is not recorded.
    """
    columns = dict(zip(recorded, (data.events > 0).float().unbind(1), strict=True))
    columns[config.death] = (data.end == 1).float()
    if unknown := set(config.predicted) - set(columns):
        raise ValueError(f"heads: events {sorted(unknown)} must be among {sorted(columns)}")
    return torch.stack([columns[name] for name in config.predicted], dim=1)


def fit_heads(
    config: FitHeadsConfig,
    data: LatentDataset,
    recorded: Sequence[str],
    folder: Path,
    device: torch.device,
) -> Heads:
    """Train on chunks of ``data``; resumes from ``folder/heads.ckpt``.

    Raises:
        ValueError: nothing is predicted, or an event that is not recorded.
        Stopped: asked to stop; run again to go on.
    """
    names = config.predicted
    if not names:
        raise ValueError("heads.events is empty; a world without heads needs no fit_heads")
    known = labels(config, data.data, recorded)
    reward = data.data.reward
    # A reward that never changes still has a spread to divide by.
    own = (float(reward.mean()), max(float(reward.std()), 1e-3))
    channels, frames, *size = data.shape
    torch.manual_seed(config.loop.seed)
    heads = Heads(
        HeadsConfig(
            latent_channels=channels,
            latent_frames=frames,
            latent_size=(size[0], size[1]),
            events=names,
            reward=tuple(config.worth.get(n, 0.0) for n in names),
            end=config.end,
            width=config.width,
            own=own if config.from_environment else None,
            chunks=config.seen,
        )
    ).to(device)
    pick = torch.Generator().manual_seed(config.loop.seed)
    use = torch.randperm(len(data.data), generator=pick)[: config.chunks]
    mirrored = data.data.sides(len(use), pick)

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = torch.randint(len(use), (config.loop.batch,), generator=generator)
        rows, side = use[rows], mirrored[rows]
        z = data.seen(side, rows, config.seen)
        share = torch.rand(len(rows), 1, 1, 1, 1, generator=generator) * config.noise
        z = z * (1 - share) + torch.randn(z.shape, generator=generator) * share
        features = heads.features(z.to(device))
        value = F.binary_cross_entropy_with_logits(heads.fc2(features), known[rows].to(device))
        if config.from_environment:
            wanted = ((reward[rows] - own[0]) / own[1]).to(device)
            value = value + F.mse_loss(heads.value(features).squeeze(1), wanted)
        return value, {}

    train("heads", heads, loss, config.loop, folder, matrices="fc1")
    return heads.eval()


@torch.no_grad()
def measure_heads(
    heads: Heads, config: FitHeadsConfig, data: LatentDataset, recorded: Sequence[str]
) -> dict[str, dict[str, float]]:
    """`event_figures` of every event on all chunks.

    "reward", where it is the environment's: its mean and spread, the error (root of the mean
    square) and the share of its variance that is explained.
    """
    device = next(heads.parameters()).device
    rows = torch.arange(len(data.data))
    side = torch.zeros_like(rows)
    told = [
        heads(data.seen(s, r, config.seen).to(device))
        for s, r in zip(side.split(256), rows.split(256), strict=True)
    ]
    said = torch.cat([torch.stack(list(t["events"].values()), 1).cpu() for t in told])
    true = labels(config, data.data, recorded)
    even = torch.ones(len(said))
    out = {
        name: event_figures(p, y, even)
        for name, p, y in zip(heads.config.events, said.unbind(1), true.unbind(1), strict=True)
    }
    if heads.config.own is not None:
        real = data.data.reward
        error = (torch.cat([t["reward"].cpu() for t in told]) - real).square().mean()
        variance = real.var(correction=0).clamp_min(1e-12)
        out["reward"] = {
            "mean": float(real.mean()),
            "spread": float(variance.sqrt()),
            "error": float(error.sqrt()),
            "explained": float(1 - error / variance),
        }
    return out


@dataclass(frozen=True)
class DreamHeadsConfig:
    """targets: judged chunks, half of them with an event where there are enough; lengths: dreamed
    chunks, the target being the last of them."""

    targets: int = 128
    lengths: tuple[int, ...] = (1, 4)
    seed: int = 0

    def __post_init__(self) -> None:
        require(
            self.targets > 0, f"DreamHeadsConfig.targets is {self.targets}; it must be at least 1"
        )
        require(
            bool(self.lengths) and min(self.lengths, default=0) > 0,
            f"DreamHeadsConfig.lengths is {self.lengths}; it must name lengths from 1 on",
        )


def draw_targets(
    data: ChunkDataset, truth: Tensor, count: int, before: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Chunks with ``before`` chunks of their episode in front, events drawn more often.

    Args:
        truth: (N, E), 1 where an event happened.

    Returns:
        Rows (n,), n <= count, and weights (n,) of sum 1 that give events their real share again.

    Raises:
        ValueError: no chunk has so many in front of it.
    """
    rows = data.starts(before + 1) + before
    require(len(rows) > 0, f"no held-out episode has {before + 1} chunks; record longer ones")
    generator = torch.Generator().manual_seed(seed)
    busy = truth[rows].amax(1) > 0.5
    groups = [rows[busy], rows[~busy]]
    wanted = min(count, len(rows))
    some = min(len(groups[0]), max(wanted // 2, wanted - len(groups[1])))
    chosen, weights = [], []
    for group, size in zip(groups, (some, wanted - some), strict=True):
        chosen.append(group[torch.randperm(len(group), generator=generator)[:size]])
        weights.append(torch.full((size,), len(group) / len(rows) / max(1, size)))
    weight = torch.cat(weights)
    return torch.cat(chosen), weight / weight.sum()


@torch.inference_mode()
def dreamed_events(
    world: World, data: ChunkDataset, targets: Tensor, length: int, seed: int
) -> Tensor:
    """The heads' probabilities (n, E) on ``targets``, each the last of ``length`` dreamed chunks.

    Raises:
        ValueError: the world has no heads.
    """
    heads, commands, said = heads_of(world), world.spec.command_names, []
    for part in targets.split(world.num_worlds):
        # The last batch may be short: its last row is dreamed more than once.
        rows = filled(part, world.num_worlds) - length + 1
        begin(world, data, rows - history_of(data), seed)
        for i in range(length):
            held = data.command[rows + i].tolist()
            chunk = world.step_latents([commands[c] for c in held])
        said.append(torch.sigmoid(heads.logits(chunk.seen)).float().cpu()[: len(part)])
    return torch.cat(said)


@torch.inference_mode()
def real_events(world: World, data: ChunkDataset, targets: Tensor, batch: int = 64) -> Tensor:
    """The heads' probabilities (n, E) on the real latents of ``targets``.

    Raises:
        ValueError: the world has no heads.
    """
    heads, vae, said = heads_of(world), world.parts.vae, []
    for part in targets.split(batch):
        rows = (data.before(part), part)
        video = [frames_to_video(data.pixels(r).to(world.device)) for r in rows]
        seen = torch.cat([vae.scale(vae.encode(v)) for v in video], 2)
        said.append(torch.sigmoid(heads.logits(seen)).float().cpu())
    return torch.cat(said)


def heads_of(world: World) -> Heads:
    """The heads, or ValueError where the world has none."""
    heads = world.parts.heads
    if not isinstance(heads, Heads):
        raise ValueError(f"{world.spec.name} has no heads to measure")
    return heads


def event_figures(said: Tensor, truth: Tensor, weight: Tensor) -> dict[str, float]:
    """How good probabilities (n,) of one event are, against what happened (n,) of 0 and 1.

    Returns:
        share (of chunks in which it happened), mean_prediction, brier, brier_of_share (of someone
        who always says the share), precision and recall at 0.5, and best_threshold with its
        best_precision, best_recall and best_f1. "Best" is the threshold of the highest F1 on these
        very chunks, so its figures are a little too good. Precision is 0 where nothing is said.
    """
    w = weight / weight.sum()
    share = float((w * truth).sum())
    out = {
        "share": share,
        "mean_prediction": float((w * said).sum()),
        "brier": float((w * (said - truth).square()).sum()),
        "brier_of_share": share * (1 - share),
    }
    out["precision"], out["recall"] = _precision_recall(said > 0.5, truth, w)
    best = (-1.0, 0.5, 0.0, 0.0)
    values = said.unique()
    # Between two predictions every threshold is the same; the middle is the safest.
    middles = [*((values[1:] + values[:-1]) / 2).tolist(), 0.5 * float(values[0])]
    for threshold in sorted(middles, key=lambda t: abs(t - 0.5)):
        precision, recall = _precision_recall(said > threshold, truth, w)
        f1 = 2 * precision * recall / max(precision + recall, 1e-9)
        best = max(best, (f1, threshold, precision, recall), key=lambda row: row[0])
    names = ("best_f1", "best_threshold", "best_precision", "best_recall")
    return {**out, **dict(zip(names, best, strict=True))}


def _precision_recall(yes: Tensor, truth: Tensor, weight: Tensor) -> tuple[float, float]:
    hit, told, there = ((weight * x).sum() for x in (yes * truth, yes, truth))
    return float(hit / told.clamp_min(1e-9)), float(hit / there.clamp_min(1e-9))


def measure_dreamed_heads(
    world: World, data: ChunkDataset, truth: Tensor, config: DreamHeadsConfig | None = None
) -> dict[str, dict[str, dict[str, float]]]:
    """`event_figures` of every event, on the same targets, real and dreamed.

    Args:
        world: of any number of worlds; it is reset.
        data: a held-out recording of the world's commands.
        truth: (N, E), 1 where the event of that column happened in the chunk
            (`magi_world.training.heads.labels`); columns as in the heads.

    Returns:
        "real" and each length that the episodes have room for, as text, -> event -> figures.

    Raises:
        ValueError: the world has no heads, ``truth`` has another shape, or the episodes are too
            short.
    """
    config = config or DreamHeadsConfig()
    events: Sequence[str] = heads_of(world).config.events
    require(
        tuple(truth.shape) == (len(data), len(events)),
        f"truth has shape {tuple(truth.shape)}; it must be {(len(data), len(events))}, a row for "
        f"each chunk and a column for each of {events}",
    )
    before = history_of(data) - 1
    lengths = [n for n in config.lengths if len(data.starts(before + n + 1))]
    require(bool(lengths), f"no held-out episode has {before + 2} chunks; record longer ones")
    before += max(lengths)
    targets, weight = draw_targets(data, truth, config.targets, before, config.seed)
    said = {"real": real_events(world, data, targets)}
    for length in lengths:
        said[str(length)] = dreamed_events(world, data, targets, length, config.seed)
    return {
        where: {
            event: event_figures(p[:, i], truth[targets, i], weight)
            for i, event in enumerate(events)
        }
        for where, p in said.items()
    }
