"""A start for the transformer that goes on as it was: every cell copied from the chunk before.

Almost all of a next chunk is in the one before it, and a transformer that begins from noise takes
most of its training to find that out. Here it is put into the weights before the first step, as
the codec's linear start is (`magi_world.training.codec`); training then learns what changes.

    layer 0   adds a constant to two channels, beside which the norms rescale nothing else, and
              reads from the caption by how many cells its command shifts the picture
    layer 1   some heads read, one chunk earlier, the cell that the shift brings here, by position
              alone, and write it into channels of their own, a channel for each number; others,
              where there is room, do the same with the cell that was here, for what stands still
              though one walks (a wall in the way, a picture's frame); the gates let through as
              much of each as stays true under the command
    output    least squares from the last norm's channels onto real chunks

All other branches start small.

Legend: C numbers of a token (latent channels x patch^2), D hidden, hd head dim, W latent frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from magi_world.config import DiTConfig
from magi_world.model.dit import NULL_CAPTION_ROWS, DiT
from magi_world.model.layers import centred_grid
from magi_world.training.data import LatentDataset
from magi_world.training.phrases import PhraseTable

CONSTANT = 4.0  # quadratic mean of the two constants over all channels; a token's own is near 1
SHARP = 2.5  # scale of the copying heads' queries and keys
EXPLAINED = 0.35  # share of a change that may be left for a shift beside cells that stand still
ENOUGH = 32  # chunks of a command that say something of its shift
SMALL = 0.1  # scale of every other branch
# How a copying head's attention is shared out over the bands of time, row and column; slow bands
# for space, so that beyond the edge the nearest cell comes next.
TIME, SPACE = (0.2, 0.1, 0.0, 0.0), (0.05, 0.12, 0.15, 0.0)
USED = 3  # bands of row and column with a share
CODE = 2 * 2 * USED  # numbers that say a shift: two axes, cosine and sine of each band's phase


@dataclass(frozen=True)
class Shifts:
    """By how many cells each caption shifts the picture.

    rows: (M, L, Cc) features of captions, padded; mask: (M, L) bool, True where a row is real.
    cells: (M, 2) down and to the right, from the chunk before to this one.
    stays: (M, numbers of a token) share of each number that is found again there.
    stands: the same of the cell itself, not shifted.
    spread: (numbers of a token,) standard deviations.
    grid: tokens of a latent frame, rows and columns.
    """

    rows: Tensor
    mask: Tensor
    cells: Tensor
    stays: Tensor
    stands: Tensor
    spread: Tensor
    grid: tuple[int, int]


def best_shift(
    before: Tensor, now: Tensor, weight: Tensor, most: int, beside: bool = False
) -> tuple[int, int]:
    """The shift by whole cells, up to ``most`` each way, that makes ``now`` of ``before``.

    Args:
        before, now: (N, C, W, h, w) latents.
        weight: (C,) of every channel in the squared error.
        beside: each cell may stand still instead, as a picture's frame does and a landscape behind
            a wall; a shift then counts if it explains much of what changed.
    """

    def errors(moved: Tensor) -> Tensor:
        return ((moved - now).square() * weight[:, None, None, None]).mean(1)

    h, w = before.shape[-2:]
    still = errors(before)
    found, least = (0, 0), float(still.mean()) * (EXPLAINED if beside else 1)
    for down in range(-min(most, h - 1), min(most, h - 1) + 1):
        for right in range(-min(most, w - 1), min(most, w - 1) + 1):
            error = errors(shifted(before, down, right))
            mean = float((error.minimum(still) if beside else error).mean())
            if mean < least:
                found, least = (down, right), mean
    return found


def shifted(latents: Tensor, down: int, right: int) -> Tensor:
    """(.., h, w) moved by whole cells; what comes in is what was at the edge."""
    h, w = latents.shape[-2:]
    rows = (torch.arange(h) - down).clamp(0, h - 1)
    cols = (torch.arange(w) - right).clamp(0, w - 1)
    return latents[..., rows, :][..., cols]


def share_that_stays(before: Tensor, now: Tensor) -> Tensor:
    """(C,) by which each channel of ``before`` (N, C, W, h, w) is best multiplied for ``now``."""
    axes = (0, 2, 3, 4)
    return (before * now).sum(axes) / before.square().sum(axes).clamp_min(1e-6)


def changed(before: Tensor, now: Tensor, weight: Tensor) -> Tensor:
    """(N,) bool, the half of the chunks that is least like the chunk before: a command shows what
    it does where nothing is in its way."""
    change = ((now - before).square().mean((2, 3, 4)) * weight).mean(1)
    return change.argsort().argsort() >= len(change) // 2


def shifts_of(
    data: LatentDataset, phrases: PhraseTable, weight: Tensor, patch: int, beside: bool
) -> Shifts:
    """By how many cells each command shifts the picture, told for all its phrasings.

    Args:
        weight: (C,) of every latent channel in the squared error.
        patch: latent cells of a token, each way.
        beside: cells that stand still are copied, too (`copies_fit`).
    """
    clip, command = data.clips(*data.draw(1024, 2, torch.Generator().manual_seed(0)))
    rows, masks, cells = [], [], []
    stays: list[Tensor] = []
    stands: list[Tensor] = []
    before, now = clip.unbind(1)
    usual = share_that_stays(before, now)
    for i, said in enumerate(phrases.phrases["train"]):
        pick = command[:, 1] == i
        found, share, still = (0, 0), usual, usual
        if pick.sum() >= ENOUGH:
            still = share_that_stays(before[pick], now[pick])
            pick[pick.clone()] = changed(before[pick], now[pick], weight)
            found = best_shift(before[pick], now[pick], weight, clip.shape[-1] // 2, beside)
            share = share_that_stays(shifted(before[pick], *found), now[pick])
        features, mask = phrases.rows(said)
        rows.append(features)
        masks.append(mask)
        cells += [[n / patch for n in found]] * len(said)
        for shares, each in ((stays, share), (stands, still)):
            shares.append(each.repeat_interleave(patch**2).expand(len(said), -1))
    h, w = (n // patch for n in clip.shape[-2:])
    spread = clip.std((0, 1, 3, 4, 5)).repeat_interleave(patch**2)
    parts = torch.cat(rows), torch.cat(masks), torch.tensor(cells), torch.cat(stays)
    return Shifts(*parts, torch.cat(stands), spread, (h, w))


def heads_for(numbers: int, head_dim: int) -> int:
    """Heads that carry a token, the channel that keeps its sum at zero, and a constant."""
    return -(-(numbers + 2) // head_dim)


def channels_for(numbers: int, copies: int) -> int:
    """Hidden channels of a token, its copies, two constants and the code of a shift."""
    return (1 + copies) * (numbers + 1) + 2 + 2 * CODE


def copies_fit(config: DiTConfig) -> int:
    """How many copies of the chunk before there is room for: none, the shifted one, both."""
    numbers = config.channels * config.patch**2
    heads = heads_for(numbers, config.head_dim)
    return sum(
        config.hidden >= channels_for(numbers, n) and config.heads >= n * heads for n in (1, 2)
    )


def check_room(config: DiTConfig) -> None:
    """Whether the copy fits into a transformer of these sizes.

    Raises:
        ValueError: it does not; says what would be enough.
    """
    numbers = config.channels * config.patch**2
    heads = heads_for(numbers, config.head_dim)
    enough = {
        "hidden": channels_for(numbers, 1),
        "layers": 2,
        "heads": heads,
        "kv_groups": heads,
        "head_dim": 8 * USED,
    }
    small = [f"{k} {getattr(config, k)} < {n}" for k, n in enough.items() if getattr(config, k) < n]
    if config.heads != config.kv_groups:
        small.append(f"kv_groups {config.kv_groups} is not heads {config.heads}")
    if small:
        raise ValueError(
            f"dynamics.copy_start has no room in dynamics.dit: {'; '.join(small)} (a token has "
            f"{numbers} numbers); leave copy_start out or make dit larger"
        )


@torch.no_grad()
def start_copying(model: DiT, width: int, shifts: Shifts) -> None:
    """Put the copy of the chunk before into ``model``, begun by `dynamics.start`.

    Args:
        width: latent frames of a chunk.
        shifts: of its captions; one without a caption shifts nothing.

    Raises:
        ValueError: there is no room for it (`check_room`).
    """
    cfg = model.config
    check_room(cfg)
    numbers = cfg.channels * cfg.patch**2
    heads, hd = heads_for(numbers, cfg.head_dim), cfg.head_dim
    token, *copies = (
        slice(i * (numbers + 1), (i + 1) * (numbers + 1)) for i in range(1 + copies_fit(cfg))
    )
    need = copies[-1].stop + 2
    constants = [need - 2, need - 1]
    # Loud channels are made softer, faint ones louder: a norm weighs all of them together.
    level = shifts.spread.clamp_min(1e-3).rsqrt()
    loudest = level * shifts.spread.clamp_min(1.0)  # of the clean numbers and the noise
    level = level * (cfg.hidden / numbers / loudest.square().mean()) ** 0.5
    basis = zero_sum_basis(numbers) * level
    model.x_embedder.weight.zero_()
    model.x_embedder.weight.flatten(1)[token] = basis
    size = CONSTANT * (cfg.hidden / 2) ** 0.5
    for i, block in enumerate(model.blocks):
        for norm in (block.self_attn_post_norm, block.mlp_post_norm):
            norm.weight.fill_(SMALL - 1)
        if i:
            # What the constants take from a token's channels the norms give back.
            for plain in (block.self_attention.linear_qkv.layer_norm, block.mlp.layer_norm):
                plain.weight.fill_(CONSTANT)
                plain.weight[constants] = 0
    model.blocks[0].self_attn_post_norm.bias[constants] = torch.tensor([size, -size])
    codes = slice(need, need + 2 * CODE)
    write_shifts(model, shifts, codes)

    attn = model.blocks[1].self_attention
    qkv, first = attn.linear_qkv, constants[0]
    qkv.layer_norm.weight[constants] = 1
    query, key, value, out = (
        cast(nn.Linear, layer).weight for layer in (qkv.q, qkv.k, qkv.v, attn.linear_proj)
    )
    joined = torch.zeros(cfg.hidden, cfg.heads * hd)
    fixed, moved, pattern = position_patterns(model, width)
    still = torch.tensor([1.0, 0.0, 1.0, 0.0]).repeat_interleave(USED)  # the code of no shift
    for i, copied in enumerate(copies):
        rows = slice(i * heads * hd, (i + 1) * heads * hd)
        query[rows], key[rows], value[rows] = 0, 0, 0
        # Behind the norm the constant is this many times as large as what stands for it in a code.
        query[rows, first] = (fixed + i * (moved @ still)).repeat(heads) / (cfg.hidden / 2) ** 0.5
        if i == 0:
            query[rows, codes] = torch.cat([moved, -moved], 1).repeat(heads, 1) / 2
        key[rows, first] = pattern.repeat(heads)
        value[rows][: numbers + 1, token] = torch.eye(numbers + 1)
        joined[copied, rows][:, : numbers + 1] = torch.eye(numbers + 1)
    for scale in (attn.q_layernorm, attn.k_layernorm):
        scale.weight.fill_(SHARP - 1)
    value[numbers + 1, first] = 1
    loud = CONSTANT  # beside the copy, so that its norm does not rescale it
    joined[constants[0], numbers + 1], joined[constants[1], numbers + 1] = loud, -loud
    free = out.unflatten(1, (8, 2, -1))[:, :, 0].flatten(1)
    joined[:, rows.stop :] = free[:, rows.stop :]
    out.unflatten(1, (8, 2, -1))[:, :, 0] = joined.unflatten(1, (8, -1))
    # The branch's mean square is that of its two constants; the copy comes out as large as it is.
    seen = math.sqrt(cfg.hidden / 2) * CONSTANT / math.sqrt(1 + CONSTANT**2)
    block = model.blocks[1]
    copied = slice(copies[0].start, copies[-1].stop)
    block.self_attn_post_norm.weight[copied] = math.sqrt(2 / cfg.hidden) * loud * seen - 1
    block.self_attn_post_norm.weight[constants] = -1
    if cfg.condition == "caption":
        open_gates(model, shifts, copied, constants)


def zero_sum_basis(numbers: int) -> Tensor:
    """(numbers + 1, numbers) orthonormal columns that sum to zero, so that a norm takes away
    nothing; each as nearly one channel as that allows, so that the gates can tell them apart."""
    x = torch.eye(numbers + 1, numbers)
    x = x - x.mean(0)
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    return u @ v


def open_gates(model: DiT, shifts: Shifts, copied: slice, constants: list[int]) -> None:
    """Make layer 1's gates let through of each copied number what stays under the command.

    The branch's constants have a gate that does not change, so that the norm behind the gates does
    not take back what they do.
    """
    gate = model.blocks[1].ada_modulate_layer.proj[0]
    assert isinstance(gate, nn.Linear)
    gate.weight[constants], gate.bias[constants] = 0, 1
    shares = [
        torch.cat([share, share.mean(1, keepdim=True)], 1)
        for share in (shifts.stays, shifts.stands)
    ]
    wanted = math.tanh(1.0) * torch.cat(shares, 1)[:, : copied.stop - copied.start].clamp(0, 1.2)
    rows = shifts.rows[:, 0]
    # The same whatever the time and the second scalar are.
    generator = torch.Generator().manual_seed(0)

    def error() -> Tensor:
        times = torch.rand(1, len(rows), generator=generator)
        intervals = torch.randint(1, 9, (1, len(rows)), generator=generator).float()
        attn, _ = model.blocks[1].ada_modulate_layer(model.condition(times, rows[None], intervals))
        return (attn[0, :, 0, copied] - wanted).square().mean()

    fit([*model.y_embedder.y_proj_adaln.parameters(), *gate.parameters()], error)
    gate.weight[constants], gate.bias[constants] = 0, 1


def fit(parameters: list[Tensor], error: Callable[[], Tensor], steps: int = 600) -> None:
    """Make ``error``, that of a few hundred captions, small by ``parameters``."""
    adam = torch.optim.Adam(parameters, lr=0.01)
    ahead = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    with torch.enable_grad():
        for _ in range(steps):
            adam.zero_grad()
            error().backward()
            adam.step()
            ahead.step()
    adam.zero_grad()


def write_shifts(model: DiT, shifts: Shifts, codes: slice) -> None:
    """Make layer 0's text branch write each caption's shift into the channels ``codes``.

    The code of a shift is the cosine and sine of each used band's phase for both axes, and the
    same again with the other sign: its mean is zero and its size is always the same, so that the
    norm behind the branch only scales it.
    """
    cfg, hd = model.config, model.config.head_dim
    embed, block = model.y_embedder, model.blocks[0]
    null = embed.null_caption_embedding[:NULL_CAPTION_ROWS]

    share = shifts.mask.float() / shifts.mask.sum(-1, keepdim=True)

    def mean_rows() -> Tensor:
        told = (embed.y_proj_xattn(shifts.rows) * share[..., None]).sum(-2)
        return torch.cat([told, embed.y_proj_xattn(null).mean(0, keepdim=True)])

    spacing = torch.stack(
        [
            axis.diff().mean() if len(axis) > 1 else axis.new_ones(())
            for axis in centred_grid(*shifts.grid, share.device)
        ]
    )
    bands = model.rope.bands.detach()[:USED]
    cells = torch.cat([shifts.cells, shifts.cells.new_zeros(1, 2)])
    # What comes from above has its key further up: the other way than the shift.
    phase = (-cells * spacing)[..., None] * bands
    code = torch.cat([phase.cos(), phase.sin()], -1).flatten(1)
    solved = (torch.randn(CODE, cfg.hidden, generator=torch.Generator().manual_seed(0))) * 0.02
    solved.requires_grad_()
    fit(
        [*embed.y_proj_xattn.parameters(), solved],
        lambda: (mean_rows() @ solved.T - code).square().mean(),
    )
    attn = block.self_attention
    attn.q_layernorm_xattn.weight.fill_(-0.98)  # all words count nearly alike
    both = attn.linear_kv_xattn.weight.unflatten(0, (cfg.kv_groups, 2, hd))
    values = both[:, 1].flatten(0, 1)
    values[:CODE] = solved.detach()
    both[:, 1] = values.unflatten(0, (cfg.kv_groups, hd))
    out = cast(nn.Linear, attn.linear_proj).weight
    out.zero_()
    joined = torch.zeros(cfg.hidden, cfg.heads * hd)
    joined[codes, :CODE] = torch.cat([torch.eye(CODE), -torch.eye(CODE)])
    out.unflatten(1, (8, 2, -1))[:, :, 1] = joined.unflatten(1, (8, -1))
    # The mean square of a code over all channels: half of its numbers' squares are one.
    block.self_attn_post_norm.weight[codes] = math.sqrt(CODE / cfg.hidden) - 1
    block.mlp_post_norm.weight[codes] = -1


def position_patterns(model: DiT, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """What makes a query, once rotated, fit where the key's token is ``width`` latent frames
    earlier and as far aside as a code says (`write_shifts`).

    Returns:
        the query's own part (hd,), what it takes of each number of the code (hd, CODE), the key
        (hd,).
    """
    hd, bands = model.config.head_dim, model.rope.bands.detach()
    count = len(bands)
    share = torch.cat([_spread(s, count) for s in (TIME, SPACE, SPACE)])
    signs = torch.tensor([1.0, -1.0]).repeat(len(share))[: len(share)]
    size, half = share.sqrt() * signs, 3 * count
    fixed, moved, key = torch.zeros(hd), torch.zeros(hd, CODE), torch.zeros(hd)
    phase = -bands * width
    fixed[:count], fixed[half : half + count] = (
        size[:count] * phase.cos(),
        size[:count] * phase.sin(),
    )
    for axis in range(2):
        for band in range(USED):
            place, number = (1 + axis) * count + band, axis * 2 * USED + band
            moved[place, number] = size[place]
            moved[half + place, number + USED] = size[place]
    key[:half] = size
    for x in (fixed, moved, key):  # what is not rotated takes the sums to zero, for the norms
        x[2 * half :] -= x.sum(0) / (hd - 2 * half)
    return fixed, moved, key


def _spread(shares: tuple[float, ...], count: int) -> Tensor:
    """The shares on ``count`` bands, from the fastest."""
    out = torch.zeros(count)
    out[: min(count, len(shares))] = torch.tensor(shares[:count])
    return out


@torch.no_grad()
def fit_output(
    model: DiT, features: Tensor, target: Tensor, weight: Tensor, ridge: float = 1e-3
) -> None:
    """Make the output the best linear map from the last norm's channels to clean latents.

    Args:
        features: (N, S, D), what `final_layernorm` gave.
        target: (N, C, W, h p, w p) clean latents.
        weight: (N,) of each chunk in the sum of squares.
    """
    cfg, p = model.config, model.config.patch
    n, c, w, height, width = target.shape
    cells = target.view(n, c, w, height // p, p, width // p, p).permute(0, 2, 3, 5, 4, 6, 1)
    rows = cells.reshape(n, -1, p * p * c).double() * cfg.rescale
    f = features.double() * weight.sqrt().double()[:, None, None]
    gram = torch.einsum("nsd,nse->de", f, f)
    against = torch.einsum("nsd,nsc->dc", f, rows * weight.sqrt().double()[:, None, None])
    gram += ridge * gram.diagonal().mean() * torch.eye(len(gram))
    model.final_linear.linear.weight.copy_(torch.linalg.solve(gram, against).T)
