"""Training the transformer: flow matching on whole clips of chunks.

x_t = (1 - t) noise + t clean, and the model gives clean - noise (reference section 3 and 4). Each
clip is n chunks of one episode; every chunk is a target, ``copies`` times at times of their own,
behind its real (slightly noised) history; the first has none, as in a world begun from text.

Legend: B clips, n chunks of a clip, K = copies * n targets, C W h w latents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from magi_world.config import DiTConfig
from magi_world.io.safetensors_io import load_tensors
from magi_world.model.dit import LEAST_NOISE, DiT, velocity_to
from magi_world.sampling.schedule import time_at
from magi_world.training.copying import (
    check_room,
    copies_fit,
    fit_output,
    shifts_of,
    start_copying,
)
from magi_world.training.data import LatentDataset
from magi_world.training.forward import Captions, velocity
from magi_world.training.loop import LoopConfig, mixed, train
from magi_world.training.phrases import PhraseTable

MOST_ROUNDS = 4  # a clip's history is dreamed at most this often over
# In `even_weights`, below these a change counts as this:
LEAST_CHANGE = 0.1  # of what a first chunk is
LEAST_CHANGE_OF_CELL = 0.01  # of the mean over all cells
TRANSFORMER = "start.safetensors"  # weights that the transformer's training begins with


@dataclass(frozen=True)
class DynamicsConfig:
    """The transformer's sizes, its clips and its optimisation.

    chunks: n; copies: noisy copies of each target; history: clean chunks a target sees;
    history_noise: most noise mixed into a history chunk; drop: share of captions dropped;
    word_drop: chance that a caption loses some of its word rows; balance: rare commands are drawn
    more often, by this power of their rarity (`LatentDataset.windows`); often: event -> how many
    times as often its chunks are, for what is rare but certain (what is left to chance would be
    dreamed too often); weigh: command or event -> how many times as much a target counts in the
    loss that is under it, or in which it happens (both: times both), where what is to be learnt of
    it is outvoted by all else that moves; intervals: values of the second time scalar (num_steps /
    2) that the weights shall know; channel_power: a latent channel counts in the loss by this power
    of its variance, so that walls and motion are not outvoted by specks; until: latest place on the
    sampler's grid, in (0, 1], from which a step is learnt: with n steps the last one begins at (n -
    1) / n, and what lies beyond would outweigh all the rest; shift: of that grid (`SamplerConfig`);
    own_history: share of the steps whose history the model has dreamed itself, and of those the
    share whose history was dreamed behind a dreamed one, and so on (`dreamed`), so that it learns
    to go on from what it makes; own_times: first and last place from which such a dream is taken to
    its end, in shares of ``until``: an early one errs as a stream does, which begins as noise
    alone; a late one is as sharp as a stream's last step, but the truth is still in it; even: a
    target's loss is divided by this power of what its command usually changes (`even_weights`), so
    that turning does not outvote standing still; even_cells: the same for each cell of the picture,
    beside the others, by what usually changes there under any command, so that a number in a corner
    is not outvoted by all that moves; copy_start: begin as a copy of the chunk before, shifted as
    the command shifts it (`magi_world.training.copying`); autocast: compute in bfloat16, None =
    where that is faster.
    """

    dit: DiTConfig
    loop: LoopConfig
    chunks: int = 8
    copies: int = 2
    history: int = 4
    history_noise: float = 0.08
    drop: float = 0.08
    word_drop: float = 0.15
    balance: float = 0.5
    often: Mapping[str, float] = field(default_factory=dict)
    weigh: Mapping[str, float] = field(default_factory=dict)
    intervals: tuple[float, ...] = (2.0, 4.0, 8.0)
    channel_power: float = 1.0
    until: float = 1.0
    shift: float = 3.0
    own_history: float = 0.0
    own_times: tuple[float, float] = (0.5, 1.0)
    even: float = 0.0
    even_cells: float = 0.0
    copy_start: bool = False
    autocast: bool | None = None
    compile: bool = True

    def __post_init__(self) -> None:
        low, high = self.own_times
        if not 0 <= low <= high <= 1:
            raise ValueError(
                f"dynamics.own_times is {list(self.own_times)}; it must be two shares of `until`, "
                "the smaller one first, like [0.5, 1.0]"
            )
        for name, times in {"often": self.often, "weigh": self.weigh}.items():
            if wrong := {e: n for e, n in times.items() if not n > 0}:
                raise ValueError(f"dynamics.{name} has {wrong}; how many times must be above 0")
        if self.copy_start:
            check_room(self.dit)


@torch.no_grad()
def start(model: DiT, seed: int) -> None:
    """Initial weights: small branches, an output of zero, gates half open, rotary bands spread."""
    torch.manual_seed(seed)
    cfg = model.config
    torch.nn.init.normal_(model.x_embedder.weight, std=(cfg.channels * cfg.patch**2) ** -0.5)
    torch.nn.init.zeros_(model.final_linear.linear.weight)
    torch.nn.init.normal_(model.y_embedder.null_caption_embedding, std=0.5)
    bands = torch.arange(len(model.rope.bands)) / max(1, len(model.rope.bands) - 1)
    model.rope.bands.copy_(1.2 * 0.05**bands)
    for block in model.blocks:
        block.self_attn_post_norm.weight.fill_(-0.7)
        block.mlp_post_norm.weight.fill_(-0.7)
        # Every world trained here let these grow; copying wants sharp attention from the start.
        block.self_attention.q_layernorm.weight.fill_(0.4)
        block.self_attention.k_layernorm.weight.fill_(0.4)
        weight, bias = block.ada_modulate_layer.proj.parameters()
        torch.nn.init.normal_(weight, std=0.02)
        torch.nn.init.ones_(bias)


@dataclass(frozen=True)
class Batch:
    """One training batch, with everything random already drawn."""

    clean: Tensor  # (B, n, C, W, h, w) history, slightly noised
    target: Tensor  # (B, K, C, W, h, w)
    noise: Tensor  # (B, K, C, W, h, w)
    t: Tensor  # (B, K)
    after: Tensor  # (K,)
    captions: Captions
    interval: Tensor  # (B, K)
    command: Tensor  # (B, K) int64 of the target; of a first chunk -1
    row: Tensor  # (B, n) int64 of the data set
    side: Tensor  # (B,) int64, 1 is mirrored

    def rows(self, part: slice) -> Batch:
        """Some of the clips."""
        told = self.captions
        return Batch(
            self.clean[part],
            self.target[part],
            self.noise[part],
            self.t[part],
            self.after,
            Captions(told.rows[part], told.mask[part], told.dropped[part]),
            self.interval[part],
            self.command[part],
            self.row[part],
            self.side[part],
        )


def draw_batch(
    config: DynamicsConfig,
    data: LatentDataset,
    phrases: PhraseTable,
    generator: torch.Generator,
    device: torch.device,
    split: str = "train",
) -> Batch:
    """Clips, times, noise, captions of one step, all from ``generator``."""
    b, n, m = config.loop.batch, config.chunks, config.copies
    row, side = data.draw(b, n, generator, config.balance, config.often)
    clip, command = data.clips(row, side)
    after = torch.arange(-1, n - 1).repeat(m)  # -1: a first chunk, without any history
    target = clip[:, after + 1]
    share = torch.rand(b, n, 1, 1, 1, 1, generator=generator) * config.history_noise
    clean = clip * (1 - share) + torch.randn(clip.shape, generator=generator) * share
    # Stratified over the copies: each target is seen at a noisier and a cleaner time.
    u = torch.rand(b, m, n, generator=generator)
    s = (u + torch.arange(m)[:, None]) / m * config.until
    noise = torch.randn(target.shape, generator=generator)
    rows, mask = phrases.draw(command[:, after + 1], generator, split, config.word_drop)
    dropped = torch.rand(b, len(after), generator=generator) < config.drop
    pick = torch.randint(len(config.intervals), (b, 1), generator=generator)
    interval = torch.tensor(config.intervals)[pick].expand(b, len(after))
    command = command[:, after + 1].masked_fill(after < 0, -1)
    return Batch(
        clean.to(device),
        target.to(device),
        noise.to(device),
        time_at(s.flatten(1), config.shift).to(device),
        after.to(device),
        Captions(rows.to(device), mask.to(device), dropped.to(device)),
        interval.to(device),
        command.to(device),
        row,
        side,
    )


@torch.no_grad()
def dreamed(
    model: DiT, config: DynamicsConfig, b: Batch, generator: torch.Generator, rounds: int = 1
) -> Batch:
    """The batch with a history that the model finished itself (arXiv 2512.15702).

    Every history chunk is noised to a time of its own and taken to the end in one step, behind the
    real chunks before it and under its own command; in every further round behind those of the
    round before, so that errors pile up as they do in a stream. The targets stay what really came.
    """
    n, real = b.clean.shape[1], b.clean
    told = b.captions
    captions = Captions(told.rows[:, :n], told.mask[:, :n], told.dropped[:, :n])
    for _ in range(rounds):
        low, high = config.own_times
        place = low + (high - low) * torch.rand(b.t[:, :n].shape, generator=generator)
        t = time_at(config.until * place, config.shift).to(b.t)
        noise = torch.randn(real.shape, generator=generator).to(real)
        x = mix(real, noise, t)
        v = velocity(model, b.clean, x, t, b.after[:n], captions, b.interval[:, :n], config.history)
        b = replace(b, clean=x + v * (1 - t)[..., None, None, None, None])
    return b


@torch.no_grad()
def foreseen(
    model: DiT,
    config: DynamicsConfig,
    data: LatentDataset,
    phrases: PhraseTable,
    steps: int,
    count: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Frames (count, T, H, W, 3) uint8 that came, and the latents (count, C, W, h, w) which
    ``model`` expects of them: as soft as those of a dream, whose last step is one such guess.

    Args:
        steps: of the sampler; the guess is made from where its last one begins.
    """
    later = config.chunks - 1  # a first chunk has nothing to go by
    device = next(model.parameters()).device
    some = replace(config, copies=1, loop=replace(config.loop, batch=-(-count // later)))
    b = draw_batch(some, data, phrases, generator, device)
    b = dreamed(model, some, b, generator, rounds_of(config.own_history, generator))
    t = torch.full_like(b.t, float(time_at(torch.tensor(1 - 1 / steps), config.shift)))
    x = mix(b.target, b.noise, t)
    v = velocity(model, b.clean, x, t, b.after, b.captions, b.interval, config.history)
    guess = x + v * (1 - t)[..., None, None, None, None]
    side = b.side[:, None].expand(-1, later)
    frames = data.data.pixels(b.row[:, 1:].flatten()[:count], side.flatten()[:count].bool())
    return frames, guess[:, 1:].flatten(0, 1)[:count]


def rounds_of(own_history: float, generator: torch.Generator) -> int:
    """How often this step's history is dreamed: again and again with the chance ``own_history``."""
    rounds = 0
    while rounds < MOST_ROUNDS and float(torch.rand((), generator=generator)) < own_history:
        rounds += 1
    return rounds


def mix(clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t of (B, K, ...) latents at times (B, K)."""
    t = t[..., None, None, None, None]
    return (1 - t) * noise + t * clean


def goal(config: DiTConfig, b: Batch, x: Tensor) -> Tensor:
    """The velocity that is right at ``x``; for a clean prediction bounded as its own is."""
    if config.prediction == "velocity":
        return b.target - b.noise
    return velocity_to(b.target, x, b.t)


def usual_changes(data: LatentDataset, channels: Tensor, most: int = 64) -> Tensor:
    """(commands + 1, h, w): the mean square by which a command changes a cell from one chunk to the
    next, in the measure of the loss; the last, and a command never recorded, what a first chunk is.

    Args:
        channels: weight (C,) of every latent channel (`channel_weights`).
        most: chunks of a command that are looked at.
    """
    generator = torch.Generator().manual_seed(3)
    follow = torch.nonzero(data.data.first != torch.arange(len(data.data))).squeeze(1)

    def size(z: Tensor) -> Tensor:
        return torch.einsum("nctyx,c->yx", z.square(), channels) / (z.shape[0] * z.shape[2])

    seen: list[Tensor | None] = []
    for command in range(int(data.command.max()) + 1):
        rows = follow[data.command[0, follow] == command]
        rows = rows[torch.randperm(len(rows), generator=generator)[:most]]
        here, before = (data.latents(torch.zeros_like(r), r) for r in (rows, rows - 1))
        seen.append(size(here - before) if len(rows) else None)
    rows = torch.randint(len(data.data), (256,), generator=generator)
    alone = size(data.latents(torch.zeros_like(rows), rows))
    return torch.stack([alone if c is None else c for c in [*seen, alone]])


def even_weights(config: DynamicsConfig, changes: Tensor) -> Tensor:
    """Weights (commands + 1, h, w) of a target's cells by its command; the last is a first chunk's.

    A first chunk, which has no history, costs ten times as much as one that goes on, and half a
    turn as much as a dozen that stand still: the gradient of a plain mean is mostly theirs. A
    weight is a power of the usual change, not of the target's own loss: that would favour the
    likelier of two outcomes over their mean, which is what a sampler has to be told.

    Args:
        changes: of `usual_changes`.
    """
    whole = changes.mean((1, 2))
    by_command = (whole / whole[-1]).clamp_min(LEAST_CHANGE) ** -config.even
    cell = changes[:-1].mean(0)
    by_cell = (cell / cell.mean()).clamp_min(LEAST_CHANGE_OF_CELL) ** -config.even_cells
    return (by_command / by_command.mean())[:, None, None] * by_cell / by_cell.mean()


def weigh_targets(
    config: DynamicsConfig, data: LatentDataset, commands: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """What ``config.weigh`` makes of every command (A + 1,), the last a first chunk's, and, by
    what happens in it, of every chunk of the recording (N,)."""
    by_command, by_row = torch.ones(len(commands) + 1), torch.ones(len(data.data))
    for name, times in config.weigh.items():
        if name in commands:
            by_command[commands.index(name)] = times
        else:
            by_row[data.data.happened(name)] *= times
    return by_command, by_row


def channel_weights(config: DynamicsConfig, data: LatentDataset) -> Tensor:
    """Weight (C,) of every latent channel in the loss, mean 1."""
    rows = torch.randperm(len(data.data), generator=torch.Generator().manual_seed(2))[:256]
    z = data.latents(torch.zeros_like(rows), rows)
    weight = z.var(dim=(0, 2, 3, 4)) ** config.channel_power
    return weight / weight.mean()


@torch.no_grad()
def copy_chunk_before(
    model: DiT, config: DynamicsConfig, data: LatentDataset, phrases: PhraseTable, parts: int = 12
) -> None:
    """Begin as a copy of the chunk before, shifted as its command shifts it, the output fitted to
    ``parts`` batches."""
    weight, patch = channel_weights(config, data), config.dit.patch
    shifts = shifts_of(data, phrases, weight, patch, copies_fit(config.dit) > 1)
    start_copying(model, data.latents(*torch.zeros(2, 1).long()).shape[2], shifts)
    features: list[Tensor] = []
    norm = model.videodit_blocks.final_layernorm
    hook = norm.register_forward_hook(lambda _, __, out: features.append(out[:, config.chunks :]))
    targets, times = [], []
    for i in range(parts):
        generator = torch.Generator().manual_seed(20_000 + i)
        b = draw_batch(config, data, phrases, generator, torch.device("cpu"))
        x = mix(b.target, b.noise, b.t)
        velocity(model, b.clean, x, b.t, b.after, b.captions, b.interval, config.history)
        targets.append(b.target.flatten(0, 1))
        times.append(b.t.flatten())
    hook.remove()
    left = (1 - torch.cat(times)).clamp_min(LEAST_NOISE)  # the loss is that of the velocity
    rows = torch.cat([f.flatten(0, 1) for f in features])
    fit_output(model, rows, torch.cat(targets), left**-2)


def train_dynamics(
    config: DynamicsConfig,
    data: LatentDataset,
    held_out: LatentDataset,
    phrases: PhraseTable,
    folder: Path,
    device: torch.device,
) -> DiT:
    """Flow matching; returns the averaged weights.

    Begins with ``folder/start.safetensors`` where that exists (`magi_world.training.assemble`) and
    resumes from ``folder/dynamics.ckpt``.

    Raises:
        Stopped: asked to stop; run again to go on.
    """
    model = DiT(config.dit)
    start(model, config.loop.seed)
    if (folder / TRANSFORMER).exists():
        model.load_state_dict(load_tensors(folder / TRANSFORMER))
    elif config.copy_start:
        copy_chunk_before(model, config, data, phrases)
    model.to(device)
    weight = channel_weights(config, data)
    if config.even or config.even_cells:  # it encodes thousands of chunks
        even = even_weights(config, usual_changes(data, weight)).to(device)
    else:
        even = torch.ones(len(phrases.commands) + 1, 1, 1, device=device)
    weight = weight.to(device)
    by_command, by_row = weigh_targets(config, data, list(phrases.commands))
    even = even * by_command[:, None, None].to(device)
    amp = mixed(config.autocast, device)

    def objective(b: Batch) -> Tensor:
        x = mix(b.target, b.noise, b.t)
        v = velocity(model, b.clean, x, b.t, b.after, b.captions, b.interval, config.history)
        error = (v - goal(config.dit, b, x)).square().mean(dim=3)  # (B, K, C, h, w)
        return (error * weight[:, None, None]).mean(2)

    compiled = torch.compile(objective) if config.compile else objective

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        batch = draw_batch(config, data, phrases, generator, device)
        rounds = rounds_of(config.own_history, generator)
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            batch = dreamed(model, config, batch, generator, rounds)
            after = batch.after.cpu()
            # What happens in a first chunk follows from nothing that is seen.
            happens = by_row[batch.row[:, after + 1]].masked_fill(after < 0, 1.0).to(device)
            weights = even[batch.command] * happens[..., None, None]
            return (compiled(batch) * weights).mean(), {}

    @torch.no_grad()
    def probe(m: DiT) -> dict[str, float]:
        error, parts = torch.zeros(config.copies), 8
        for i in range(parts):
            generator = torch.Generator().manual_seed(10_000 + i)
            batch = draw_batch(config, held_out, phrases, generator, device)
            with torch.autocast(device.type, torch.bfloat16, enabled=amp):
                error += compiled(batch).unflatten(1, (config.copies, -1)).mean((0, 2, 3, 4)).cpu()
        return {f"held_out_{i}": float(e) / parts for i, e in enumerate(error)}

    low = torch.bfloat16 if amp else None
    train("dynamics", model, loss, config.loop, folder, "videodit_blocks", probe, 100, low)
    return model
