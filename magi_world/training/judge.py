"""Whether dreams obey: a judge of commands trained on real chunks, and the choice of true futures.

The judge tells from frames alone which command was held (inverse dynamics). Half of its pictures
are softened by a random amount, so that it has to look at motion: a judge of sharp pictures alone
takes every soft one for standing still, whatever moves in it. How sharp dreams are is measured
separately (`magi_world.training.evaluate`). Of chunks of one frame it sees the last frame before
as well: a single picture shows no motion.

Legend: N chunks, T frames, H W pixels, A commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magi_world.simulator import RecordConfig
from magi_world.training.data import ChunkDataset
from magi_world.training.loop import LoopConfig, train
from magi_world.training.rollout import EvaluateConfig, begin, chunks_in, filled, history_of
from magi_world.world.world import World

OTHERS = 3  # wrong commands beside the true one: chance is 1 in 4
STAYS = 9.0  # seconds that a changed scene must last: twenty chunks of eight frames
WITHIN = 0.1  # share of the real brightness


@dataclass(frozen=True)
class ClassifierConfig:
    """Width of the network, its optimisation, and by how many passes of a (1, 2, 1) / 4 filter
    training pictures are softened at most."""

    loop: LoopConfig
    width: int = 32
    soften: int = 6


def watched(frames: Tensor, before: Tensor) -> Tensor:
    """What a judge looks at: uint8 chunks (N, T, H, W, 3), of single frames with the last frame of
    the chunks ``before`` (N, T, H, W, 3) in front."""
    return frames if frames.shape[1] > 1 else torch.cat([before[:, -1:], frames], 1)


def watched_rows(data: ChunkDataset, rows: Tensor, side: Tensor | None = None) -> Tensor:
    """`watched` of a recording's rows, mirrored where ``side`` is true."""
    frames = data.pixels(rows, side)
    return watched(frames, frames if frames.shape[1] > 1 else data.pixels(data.before(rows), side))


class InverseDynamics(nn.Module):
    """Convolutions over the frames of a chunk, stacked on the channel axis."""

    def __init__(
        self, frames: int, size: tuple[int, int], judged: Sequence[int], width: int = 32
    ) -> None:
        """``judged``: rows of the command table between which it decides."""
        super().__init__()
        self.register_buffer("judged", torch.tensor(list(judged)))
        self.features = nn.Sequential(
            nn.Conv2d(2 * frames - 1, width, 5, 2, 2),
            nn.GELU(),
            nn.Conv2d(width, 2 * width, 3, 2, 1),
            nn.GELU(),
            nn.Conv2d(2 * width, 2 * width, 3, 2, 1),
            nn.GELU(),
            nn.Flatten(),
        )
        inner = 2 * width * -(-size[0] // 8) * -(-size[1] // 8)
        self.blocks = nn.Sequential(nn.Linear(inner, 128), nn.GELU(), nn.Linear(128, len(judged)))

    def look(self, frames: Tensor) -> Tensor:
        """uint8 (N, T, H, W, 3) -> features (N, ..) of the grey frames and their differences.

        Both in units of their usual contrast: dark pictures in [-1, 1] are learnt very slowly. The
        frames may be on another device; the features are on the judge's.
        """
        frames = frames.to(next(self.parameters()).device)
        return self.regard((frames.float().mean(-1) - 40) / 40)

    def regard(self, grey: Tensor) -> Tensor:
        """Normalised grey frames (N, T, H, W) -> features (N, ..)."""
        return self.features(torch.cat([grey, 4 * grey.diff(dim=1)], dim=1))

    def forward(self, frames: Tensor, passes: Tensor | None = None) -> Tensor:
        """uint8 (N, T, H, W, 3) -> logits (N, A); passes (N,): of the filter that softens each."""
        grey = (frames.float().mean(-1) - 40) / 40
        if passes is not None:
            grey = soften(grey, passes)
        return self.blocks(self.regard(grey))

    @torch.no_grad()
    def predict(self, frames: Tensor, batch: int = 256) -> Tensor:
        """uint8 (N, T, H, W, 3) -> row of the command table (N,)."""
        device = next(self.parameters()).device
        parts = [self(part.to(device)).argmax(1).cpu() for part in frames.split(batch)]
        return self.get_buffer("judged").cpu()[torch.cat(parts)]


def soften(grey: Tensor, passes: Tensor) -> Tensor:
    """(N, T, H, W) pictures, the n-th filtered ``passes[n]`` times by (1, 2, 1) / 4 both ways."""
    kernel = grey.new_tensor([1.0, 2.0, 1.0]) / 4
    kernel = (kernel[:, None] * kernel).expand(grey.shape[1], 1, 3, 3)
    for done in range(int(passes.max())):
        padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
        softer = F.conv2d(padded, kernel, groups=grey.shape[1])
        grey = torch.where((passes > done)[:, None, None, None], softer, grey)
    return grey


def train_classifier(
    config: ClassifierConfig,
    data: ChunkDataset,
    commands: Sequence[str],
    folder: Path,
    device: torch.device,
    moves: Sequence[str] | None = None,
) -> InverseDynamics:
    """Train on real chunks, commands drawn equally often; resumes from ``classifier.ckpt``.

    Args:
        moves: the commands that can be told from one chunk (`RecordConfig.moves`); None = all.

    Raises:
        Stopped: asked to stop; run again to go on.
    """
    torch.manual_seed(config.loop.seed)
    judged = [i for i, name in enumerate(commands) if moves is None or name in moves]
    size = data.frames[0].shape
    model = InverseDynamics(max(2, size[1]), (size[2], size[3]), judged, config.width).to(device)
    mirrored = data.images(commands)
    rank = torch.full((len(commands),), -1)
    rank[judged] = torch.arange(len(judged))
    whole = data.end == 0
    rows = [torch.nonzero((data.command == c) & whole).squeeze(1) for c in range(len(commands))]
    if absent := [commands[i] for i in judged if len(rows[i]) == 0]:
        raise ValueError(f"commands {absent} do not occur in the recording; record more chunks")

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        drawn = torch.randint(len(judged), (config.loop.batch,), generator=generator)
        command = torch.tensor(judged)[drawn]
        side = data.sides(len(command), generator).bool()
        pick = torch.rand(len(command), generator=generator)
        # A mirrored chunk of the mirrored command is a chunk of this one.
        source = torch.where(side, mirrored[command], command)
        chosen = torch.stack(
            [rows[c][int(u * len(rows[c]))] for c, u in zip(source.tolist(), pick, strict=True)]
        )
        passes = torch.randint(1 + config.soften, (len(command),), generator=generator)
        passes = passes * (torch.rand(len(command), generator=generator) < 0.5)
        logits = model(watched_rows(data, chosen, side).to(device), passes.to(device))
        value = F.cross_entropy(logits, rank[command].to(device))
        right = float((logits.argmax(1).cpu() == rank[command]).float().mean())
        return value, {"accuracy": right}

    train("classifier", model, loss, config.loop, folder, matrices="blocks")
    return model.eval()


def accuracy(predicted: Tensor, command: Tensor, commands: Sequence[str]) -> dict[str, float]:
    """Mean over all chunks ("all") and for every command that occurs."""
    right = (predicted == command).float()
    out = {"all": float(right.mean())}
    for i, name in enumerate(commands):
        if bool((command == i).any()):
            out[name] = float(right[command == i].mean())
    return out


def obedience(
    world: World, data: ChunkDataset, record: RecordConfig, config: EvaluateConfig
) -> dict[str, Any]:
    scenes = list(record.scenes.options) if record.scenes else []
    choice = choices(world, data, config)
    groups = {"moves": record.moves, "scenes": scenes}
    groups["goals"] = [c for c in record.actions if c not in {*record.moves, *scenes}]
    told: dict[str, Any] = {"choice_of_truth": choice, "chance": 1 / (1 + OTHERS)}
    for group, names in groups.items():
        if found := [choice[n] for n in names if n in choice]:
            told[f"choice_{group}"] = sum(found) / len(found)
    told["choice_all"] = sum(choice.values()) / max(1, len(choice))
    if scenes:
        told["scenes"] = {name: brightness(world, data, record, name, config) for name in scenes}
    return told


def clips_of(data: ChunkDataset, command: int, count: int, seed: int, held: int = 1) -> Tensor:
    """First rows of at most ``count`` clips whose ``held`` chunks behind the history have this
    command."""
    before = history_of(data)
    rows = data.starts(before + held)
    behind = rows[:, None] + before + torch.arange(held)
    rows = rows[((data.command[behind] == command) & (data.end[behind] == 0)).all(1)]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return rows[order[:count]]


def choices(world: World, data: ChunkDataset, config: EvaluateConfig) -> dict[str, float]:
    """Per command, in what share of its clips the dream under it was nearest to the truth."""
    names = list(world.spec.command_names)
    before, told = history_of(data), {}
    pick = torch.Generator().manual_seed(config.seed)
    for truth, name in enumerate(names):
        for held in (config.held, 1):
            rows = clips_of(data, truth, config.choices, config.seed, held)
            if len(rows) == config.choices:
                break
        right = []
        for part in rows.split(world.num_worlds) if len(rows) else ():
            whole = filled(part, world.num_worlds)
            real = torch.cat([data.pixels(whole + before + i) for i in range(held)], 1)
            begin(world, data, part, config.seed)
            start = world.snapshot()
            others = torch.randperm(len(names) - 1, generator=pick)[:OTHERS]
            errors = []
            for command in [truth, *(others + (others >= truth)).tolist()]:
                world.restore(start)
                made = [world.step(names[command]).decoded.cpu() for _ in range(held)]
                error = torch.cat(made, 1).float() - real.float()
                errors.append(error.square().flatten(1).mean(1))
            # Strictly nearer: a world that is deaf dreams the same whatever it is told.
            right.append((errors[0] < torch.stack(errors[1:]).amin(0))[: len(part)])
        if right:
            told[name] = float(torch.cat(right).float().mean())
    return told


def brightness(
    world: World, data: ChunkDataset, record: RecordConfig, name: str, config: EvaluateConfig
) -> dict[str, float]:
    """Whether the picture is as bright as the real one after a change, and stays so.

    Share of held-out clips within 10 %: right after the chunk, and also in the mean of the last of
    `STAYS` more seconds under the world's default command, which should not move.
    """
    before, spec = history_of(data), world.spec
    names = list(spec.command_names)
    rows = clips_of(data, names.index(name), 4 * config.choices, config.seed)
    after, stays = [], []
    for part in rows.split(world.num_worlds) if len(rows) else ():
        whole = filled(part, world.num_worlds)
        real = level(data.pixels(whole + before))
        begin(world, data, part, config.seed)
        made = level(world.step(name).decoded.cpu())
        for _ in range(chunks_in(STAYS, spec)):
            last = world.step(spec.default_command or name)
        good = ((made - real).abs() < WITHIN * real)[: len(part)]
        kept = ((level(last.decoded.cpu()) - real).abs() < WITHIN * real)[: len(part)]
        after.append(good)
        stays.append(good & kept)
    return {
        "clips": float(len(rows)),
        "after_the_chunk": float(torch.cat(after).float().mean()) if after else 0.0,
        "and_stays": float(torch.cat(stays).float().mean()) if stays else 0.0,
    }


def level(frames: Tensor) -> Tensor:
    """Brightness (n,) of the last frame of uint8 chunks (n, T, H, W, 3)."""
    return frames[:, -1].float().flatten(1).mean(1)
