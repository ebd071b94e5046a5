"""The autoencoder on clips that are too large for one pass, tile by tile (reference section 5).

Shape legend
    N  batch    C  latent channels    T, H, W  video    t, h, w  latents

Tiles start every stride, in the order time, rows, columns. Those at the end are smaller and run
at their own size, so tiles change the result and are used as the released model uses them, not
only where memory asks for it. Beside the input and the output, what is held is one tile and the
overlapping strips of its neighbours.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from magi_world.config import VAEConfig, require
from magi_world.model.offload import awake
from magi_world.model.vae import VAE, check_latents, check_video

Triple = tuple[int, int, int]
# (network, tiles) -> its result for each, in order. `map` runs them here, one at a time.
Spread = Callable[[Callable[[Tensor], Tensor], Iterable[Tensor]], Iterator[Tensor]]


@dataclass(frozen=True)
class Together:
    """Runs tiles of one size in one batch, at most ``most`` of them; a `Spread`.

    Convolutions and products may round differently with the number of tiles in a batch.
    """

    most: int = 8

    def __call__(
        self, model: Callable[[Tensor], Tensor], tiles: Iterable[Tensor]
    ) -> Iterator[Tensor]:
        """Results in the order of the tiles."""
        waiting = list(tiles)  # views of the clip
        of_shape: dict[torch.Size, list[int]] = {}
        for i, tile in enumerate(waiting):
            of_shape.setdefault(tile.shape, []).append(i)
        done: dict[int, Tensor] = {}
        for i, tile in enumerate(waiting):
            if i not in done:
                places = of_shape[tile.shape]
                batch, of_shape[tile.shape] = places[: self.most], places[self.most :]
                results = model(torch.cat([waiting[j] for j in batch])).split(len(tile))
                done.update(zip(batch, results, strict=True))
            yield done.pop(i)


@dataclass(frozen=True)
class TileConfig:
    """Size of a tile in pixels and frames, and the share of it that its neighbour covers too.

    The released model uses 256 x 256 pixels and fps / 2 frames.
    """

    height: int = 256
    width: int = 256
    length: int = 12
    spatial_overlap: float = 0.25
    temporal_overlap: float = 0.0

    def __post_init__(self) -> None:
        for name in ("height", "width", "length"):
            value = getattr(self, name)
            require(value > 0, f"TileConfig.{name} is {value}; it must be a positive integer")
        for name in ("spatial_overlap", "temporal_overlap"):
            value = getattr(self, name)
            require(0 <= value < 1, f"TileConfig.{name} is {value}; it must be in [0, 1)")


@torch.no_grad()
def encode_tiled(vae: VAE, video: Tensor, tile: TileConfig, spread: Spread = map) -> Tensor:
    """:meth:`VAE.encode` in tiles: video (N, 3, T, H, W) -> unscaled latents (N, C, t, h, w).

    Each tile is blended with neighbours that are themselves blended. No gradient is kept.

    Raises:
        ValueError: a video that :meth:`VAE.encode` refuses, or a tile that is not whole patches.
    """
    size, stride = _in_patches(tile, vae.config)
    check_video(video, vae.config, image_allowed=True)
    scale = _patch(vae.config)
    if video.shape[2] == 1:
        scale = (1, *scale[1:])
    with awake(vae.encoder):
        return _run(vae.encode, video, size, stride, (scale, (1, 1, 1)), True, spread)


@torch.no_grad()
def decode_tiled(
    vae: VAE,
    latents: Tensor,
    tile: TileConfig,
    first_frame_only: bool | None = None,
    spread: Spread = map,
) -> Tensor:
    """:meth:`VAE.decode` in tiles: unscaled latents (N, C, t, h, w) -> video (N, 3, T, H, W).

    Each tile is blended with neighbours as they were decoded. No gradient is kept.
    ``first_frame_only`` is about the whole clip, as in :meth:`VAE.decode`. (The released code asks
    it of every tile, and so loses three frames where the last tile is one latent frame long.)

    Raises:
        ValueError: latents that :meth:`VAE.decode` refuses, or a tile that is not whole patches.
    """
    size, stride = _in_patches(tile, vae.config)
    check_latents(latents, vae.config)
    image = latents.shape[2] == 1 if first_frame_only is None else first_frame_only
    if image:
        latents = latents[:, :, : size[0]]
    scale = ((1, 1, 1), _patch(vae.config))
    with awake(vae.decoder):
        video = _run(vae.decoder, latents, size, stride, scale, False, spread)
    return video[:, :, :1] if image else video


def _run(
    model: Callable[[Tensor], Tensor],
    clip: Tensor,
    size: Triple,
    stride: Triple,
    scale: tuple[Triple, Triple],
    blended_neighbours: bool,
    spread: Spread,
) -> Tensor:
    """All tiles of ``clip`` through ``model``, blended, cropped to the stride and joined.

    size, stride: of a tile, in latents. scale: elements of the clip and of the result per latent.
    """
    grid = tuple(n // s for n, s in zip(clip.shape[2:], scale[0], strict=True))
    overlap = tuple((n - m) * s for n, m, s in zip(size, stride, scale[1], strict=True))
    out: Tensor | None = None
    starts = itertools.product(*(range(0, n, s) for n, s in zip(grid, stride, strict=True)))
    results = spread(model, (clip[_window(start, size, scale[0])] for start in starts))
    earlier: dict[tuple[int, int], Tensor] = {}  # strip of the tile before, by row and column
    for t in range(0, grid[0], stride[0]):
        upper: dict[int, Tensor] = {}  # strip of the tile above, by column
        for y in range(0, grid[1], stride[1]):
            left: Tensor | None = None
            for x in range(0, grid[2], stride[2]):
                own = next(results)
                blended = own
                neighbours = (earlier.get((y, x)), upper.get(x), left)
                for axis, neighbour in enumerate(neighbours, start=2):
                    if neighbour is not None:
                        blended = _blend(neighbour, blended, axis)
                source = blended if blended_neighbours else own
                if overlap[0]:
                    earlier[y, x] = _tail(source, overlap[0], 2)
                if overlap[1]:
                    upper[x] = _tail(source, overlap[1], 3)
                if overlap[2]:
                    left = _tail(source, overlap[2], 4)
                if out is None:
                    whole = (n * s for n, s in zip(grid, scale[1], strict=True))
                    out = blended.new_empty((*blended.shape[:2], *whole))
                place = out[_window((t, y, x), stride, scale[1])]
                place.copy_(blended[_window((0, 0, 0), place.shape[2:], (1, 1, 1))])
    assert out is not None  # an empty clip was refused before
    return out


def _window(start: tuple[int, ...], size: tuple[int, ...], scale: Triple) -> tuple[slice, ...]:
    """Index of a tile's elements; slices end with the clip, so tiles at the end are smaller."""
    rest = (slice(a * s, (a + n) * s) for a, n, s in zip(start, size, scale, strict=True))
    return (slice(None), slice(None), *rest)


def _blend(neighbour: Tensor, tile: Tensor, axis: int) -> Tensor:
    """Go from ``neighbour`` to ``tile`` over the n elements they share; tile's weight is i / n."""
    n = min(neighbour.shape[axis], tile.shape[axis])
    before = neighbour.narrow(axis, neighbour.shape[axis] - n, n)
    weight = (torch.arange(n, device=tile.device) / n).to(tile.dtype)
    weight = weight.view(-1, *[1] * (tile.dim() - 1 - axis))
    shared = before * (1 - weight) + tile.narrow(axis, 0, n) * weight
    return torch.cat([shared, tile.narrow(axis, n, tile.shape[axis] - n)], dim=axis)


def _tail(tile: Tensor, n: int, axis: int) -> Tensor:
    """A copy of the last ``n`` elements, so that the tile itself can be freed."""
    n = min(n, tile.shape[axis])
    return tile.narrow(axis, tile.shape[axis] - n, n).clone()


def _patch(config: VAEConfig) -> Triple:
    return config.patch_length, config.patch_size, config.patch_size


def _in_patches(tile: TileConfig, config: VAEConfig) -> tuple[Triple, Triple]:
    """Size and stride of a tile in latents, (t, h, w) each.

    Raises:
        ValueError: the size or the stride of a tile is not a whole number of patches.
    """
    sizes, strides = [], []
    for name, overlap, patch in (
        ("length", tile.temporal_overlap, config.patch_length),
        ("height", tile.spatial_overlap, config.patch_size),
        ("width", tile.spatial_overlap, config.patch_size),
    ):
        size = getattr(tile, name)
        stride = round(size * (1 - overlap), 6)  # 0.2 of a size is not exact in binary
        require(
            size % patch == 0 and stride % patch == 0,
            f"TileConfig.{name} is {size} with an overlap of {overlap}; it and its stride "
            f"({stride:g}) must be divisible by the patch ({patch})",
        )
        sizes.append(size // patch)
        strides.append(int(stride) // patch)
    return tuple(sizes), tuple(strides)  # type: ignore[return-value]
