"""The autoencoder against reference numbers: encode and decode, other sizes, tiles."""

from __future__ import annotations

import torch
from torch import Tensor

from magi_world.config import VAEConfig
from magi_world.model.tiling import TileConfig, decode_tiled, encode_tiled
from magi_world.model.vae import VAE
from tests.reference.compare import relative_error

INPUTS = ("video", "weights.")
EXPECTED = ("latent", "decoded")


def check_vae(case: dict, tensors: dict[str, Tensor]) -> dict[str, float]:
    """Relative error of every expected tensor of the case.

    A case has ``video`` (input of encode), ``latent`` (its result and the input of decode) and
    ``decoded``, each with suffixes: ``_tiled...`` runs in ``case["tile"]``, all others in one pass.

    Raises:
        ValueError: a tensor that is none of these, or one whose input is missing.
    """
    vae = load_reference_vae(case, tensors)
    errors = {}
    for name, want in tensors.items():
        if name.startswith(INPUTS):
            continue
        kind, _, suffix = name.partition("_")
        source = f"{'video' if kind == 'latent' else 'latent'}{name.removeprefix(kind)}"
        if kind not in EXPECTED or source not in tensors:
            raise ValueError(f"reference tensor {name!r} is not one that this check understands")
        x = tensors[source].float()
        with torch.no_grad():
            if suffix.startswith("tiled"):
                tile = TileConfig(**case["tile"])
                got = (encode_tiled if kind == "latent" else decode_tiled)(vae, x, tile)
                if kind == "decoded" and x.shape[2] > 1:
                    got = got[:, :, released_frames(x.shape[2], tile, vae.config)]
            else:
                got = (vae.encode if kind == "latent" else vae.decode)(x)
        errors[name] = relative_error(got, want)
    for name in tensors:
        if name.startswith("video") and name.replace("video", "latent", 1) not in tensors:
            raise ValueError(f"reference tensor {name!r} has no expected latents")
    return errors


def load_reference_vae(case: dict, tensors: dict[str, Tensor]) -> VAE:
    """The case's model with its weights, strictly loaded, computing in float32."""
    vae = VAE(VAEConfig.from_ddconfig(case["ddconfig"])).eval()
    prefix = "weights."
    weights = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    vae.load_state_dict(weights, strict=True)
    return vae


def released_frames(latents: int, tile: TileConfig, config: VAEConfig) -> list[int]:
    """Frames that the released decoder has: only the first one of a tile of one latent frame."""
    size = tile.length // config.patch_length
    stride = round(size * (1 - tile.temporal_overlap))
    frames: list[int] = []
    for start in range(0, latents, stride):
        end = min(start + stride, latents)
        image = min(size, latents - start) == 1
        first = start * config.patch_length
        frames += [first] if image else range(first, end * config.patch_length)
    return frames
