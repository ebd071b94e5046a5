"""Every number that shapes the model, in frozen dataclasses. Presets: `magi_world.io.released`.

A configuration is checked when it is built: what cannot run together is refused with a
message that names the field, its value and what would be right.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

DEFAULT_WORLD = "courtyard"  # where none is named
SHORTCUT_MODES = ("8,16,16", "16,16,8")
PREDICTIONS = ("velocity", "clean")
CONDITIONS = ("null", "caption")


# Far beyond every model that there is: a mistake ends here, not after hours or in the swap.
MOST = {
    "layers": 512,
    "depth": 512,
    "hidden": 65_536,
    "ffn": 1_048_576,
    "heads": 1_024,
    "kv_groups": 1_024,
    "head_dim": 4_096,
    "patch": 64,
    "num_steps": 1_024,
    "window_size": 64,
    "chunk_width": 64,
    "frame_size": 16_384,
}


_VAE_SIZES = (
    "width", "depth", "heads", "latent_channels", "patch_size", "patch_length", "video_size",
    "video_length",
)  # fmt: skip


def require(condition: bool, message: str) -> None:
    """Raise ``ValueError(message)`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of the diffusion transformer (reference section 1).

    ``latent_channels`` is what the VAE gives; with ``duplicate_channels`` (24B) the latent is
    repeated on the channel axis going in and only the first half comes out.

    What the released weights do not have, and small worlds learn better with:
    prediction: what the output is read as. "clean" is the clean latent, from which the velocity
        follows (JiT, arXiv 2511.13720); "velocity" is MAGI-1's.
    condition: what the gates are told of the caption. "caption" is its first feature row, which
        `StaticTextEncoder` makes the mean of all words; "null" is MAGI-1's, whether there is one.
    """

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_groups: int
    head_dim: int
    latent_channels: int = 16
    duplicate_channels: bool = False
    gated: bool = False
    rescale: float = 1.0
    caption_channels: int = 4096
    caption_length: int = 800
    patch: int = 2
    eps: float = 1e-6
    fp8: bool = False
    prediction: Literal["velocity", "clean"] = "velocity"
    condition: Literal["null", "caption"] = "null"

    def __post_init__(self) -> None:
        for name in ("layers", "hidden", "ffn", "heads", "kv_groups", "head_dim", "patch"):
            value = getattr(self, name)
            require(
                type(value) is int and 0 < value <= MOST[name],
                f"DiTConfig.{name} is {value!r:.40}; it must be a positive integer up to "
                f"{MOST[name]:,}",
            )
        require(
            self.heads % self.kv_groups == 0,
            f"DiTConfig.kv_groups is {self.kv_groups}; it must divide heads ({self.heads})",
        )
        require(
            self.head_dim % 8 == 0,
            f"DiTConfig.head_dim is {self.head_dim}; it must be a multiple of 8, because each of "
            "the three axes rotates head_dim / 8 pairs",
        )
        require(
            (self.heads * self.head_dim) % 8 == 0 and self.hidden % 4 == 0,
            f"DiTConfig: heads * head_dim ({self.heads * self.head_dim}) must be a multiple of 8 "
            f"and hidden ({self.hidden}) a multiple of 4",
        )
        require(
            self.caption_length >= 50,
            f"DiTConfig.caption_length is {self.caption_length}; the null caption is the first 50 "
            "rows of a table of that length",
        )
        for name in ("rescale", "eps"):
            value = getattr(self, name)
            require(value > 0, f"DiTConfig.{name} is {value}; it must be positive")
        for name, known in (("prediction", PREDICTIONS), ("condition", CONDITIONS)):
            value = getattr(self, name)
            require(value in known, f"DiTConfig.{name} is {value!r}; it must be one of {known}")

    @property
    def channels(self) -> int:
        """Channels that enter and leave the transformer."""
        return self.latent_channels * (2 if self.duplicate_channels else 1)

    @property
    def condition_width(self) -> int:
        """Width of the time and caption condition."""
        return self.hidden // 4


@dataclass(frozen=True)
class VAEConfig:
    """Sizes of the ViT autoencoder (reference section 5)."""

    width: int = 1024
    depth: int = 24
    heads: int = 16
    mlp_ratio: float = 4.0
    latent_channels: int = 16
    patch_size: int = 8
    patch_length: int = 4
    video_size: int = 256
    video_length: int = 16
    qkv_bias: bool = True
    final_proj: bool = False
    scale_factor: float = 0.18215

    def __post_init__(self) -> None:
        for name in _VAE_SIZES:
            value = getattr(self, name)
            require(
                type(value) is int and 0 < value <= MOST.get(name, 16_384),
                f"VAEConfig.{name} is {value!r:.40}; it must be a positive integer up to "
                f"{MOST.get(name, 16_384):,}",
            )
        for name in ("mlp_ratio", "scale_factor"):
            value = getattr(self, name)
            require(value > 0, f"VAEConfig.{name} is {value}; it must be positive")
        require(
            self.width % self.heads == 0,
            f"VAEConfig.heads is {self.heads}; it must divide width ({self.width})",
        )
        pixels = self.patch_length * self.patch_size**2
        require(
            self.final_proj or self.width % pixels == 0,
            f"VAEConfig.width is {self.width}; without final_proj it must be a multiple of "
            f"patch_length * patch_size^2 = {pixels}",
        )
        for size, patch in (("video_size", "patch_size"), ("video_length", "patch_length")):
            a, b = getattr(self, size), getattr(self, patch)
            require(a % b == 0, f"VAEConfig.{size} is {a}; it must be a multiple of {patch} ({b})")

    @staticmethod
    def from_ddconfig(dd: dict[str, Any], scale_factor: float = 0.18215) -> VAEConfig:
        """Read the ``ddconfig`` of a released ``ViTVAE``; refuse what the released VAE never does.

        Raises:
            ValueError: a flag has a value that this architecture does not cover.
        """
        fixed = {
            "in_chans": 3,
            "double_z": True,
            "with_cls_token": True,
            "norm_code": False,
            "ln_in_attn": True,
            "conv_last_layer": True,
        }
        for name, value in fixed.items():
            got = dd.get(name, value)
            require(got == value, f"VAE ddconfig {name} is {got!r}; only {value!r} is supported")
        return VAEConfig(
            width=dd["embed_dim"],
            depth=dd["depth"],
            heads=dd["num_heads"],
            mlp_ratio=dd["mlp_ratio"],
            latent_channels=dd["z_chans"],
            patch_size=dd["patch_size"],
            patch_length=dd["patch_length"],
            video_size=dd["video_size"],
            video_length=dd["video_length"],
            qkv_bias=dd.get("qkv_bias", True),
            final_proj=dd.get("use_final_proj", False),
            scale_factor=scale_factor,
        )


@dataclass(frozen=True)
class SamplerConfig:
    """How chunks are denoised (reference section 4).

    passes: 3 = base weights with guidance from three passes; 1 = guidance is in the weights.
    kv_range: how many chunks, itself included, a chunk sees; the first entry is for the noisiest.
    clean_kv_range: the same for a clean chunk whose keys are being cached; -1 = last of kv_range.
    sink: first chunks of a video that count among those seen by a range above it, always.
    shift: of the time grid (that of Stable Diffusion 3): above 1 most steps are spent where there
        is most noise, as large pictures need it; below 1 on the details of small ones.
    solo_above_t, solo_weight: one-pass sampler only; the oldest chunk in flight, once cleaner
        than this, is also run seeing only itself, with this share of its velocity.
    """

    num_steps: int = 64
    window_size: int = 4
    chunk_width: int = 6
    passes: int = 3
    distilled: bool = False
    kv_range: tuple[int, ...] = (5, 4, 3, 2)
    clean_kv_range: int = 1
    clean_t: float = 0.9999
    guidance_t: tuple[float, ...] = (0.0, 0.0217, 0.1, 0.3, 0.999)
    prev_scales: tuple[float, ...] = (1.5, 1.5, 1.5, 1.0, 1.0)
    text_scales: tuple[float, ...] = (7.5, 7.5, 7.5, 0.0, 0.0)
    solo_above_t: float = 0.3
    solo_weight: float = 0.3
    shortcut_mode: Literal["8,16,16", "16,16,8"] = "8,16,16"
    sink: int = 0
    shift: float = 3.0

    def __post_init__(self) -> None:
        for name in ("num_steps", "window_size", "chunk_width"):
            value = getattr(self, name)
            require(
                type(value) is int and 0 < value <= MOST[name],
                f"SamplerConfig.{name} is {value!r:.40}; it must be a positive integer up to "
                f"{MOST[name]:,}",
            )
        require(
            self.passes in (1, 3),
            f"SamplerConfig.passes is {self.passes}; base weights need 3, distilled ones 1",
        )
        require(
            not (self.distilled and self.passes == 3),
            "SamplerConfig.passes is 3, but the weights are distilled: their guidance is in the "
            "weights, so passes must be 1",
        )
        require(
            self.num_steps % self.window_size == 0,
            f"SamplerConfig.num_steps is {self.num_steps}; it must be divisible by window_size "
            f"({self.window_size}), because every chunk in flight takes the same number of steps "
            "a stage",
        )
        require(
            len(self.kv_range) > 0 and all(r >= 1 for r in self.kv_range),
            f"SamplerConfig.kv_range is {self.kv_range}; every entry counts the chunk itself and "
            "must be at least 1",
        )
        require(
            self.num_steps % len(self.kv_range) == 0,
            f"SamplerConfig.num_steps is {self.num_steps}; it must be divisible by the number of "
            f"key ranges ({len(self.kv_range)}, kv_range = {self.kv_range})",
        )
        require(
            self.clean_kv_range == -1 or self.clean_kv_range >= 1,
            f"SamplerConfig.clean_kv_range is {self.clean_kv_range}; it must be -1 or at least 1",
        )
        require(
            0 <= self.sink < max(min(self.kv_range), 2) - 1 or self.sink == 0,
            f"SamplerConfig.sink is {self.sink}; with kv_range = {self.kv_range} it must be below "
            f"{min(self.kv_range) - 1}, so that the newest chunk is seen as well; give a longer "
            "history",
        )
        require(
            len(self.guidance_t) == len(self.prev_scales) == len(self.text_scales) > 0,
            "SamplerConfig: guidance_t, prev_scales and text_scales must have the same length, not "
            f"{len(self.guidance_t)}, {len(self.prev_scales)} and {len(self.text_scales)}",
        )
        require(
            self.shortcut_mode in SHORTCUT_MODES,
            f"SamplerConfig.shortcut_mode is {self.shortcut_mode!r}; it must be one of "
            f"{SHORTCUT_MODES}",
        )
        require(
            type(self.shift) in (int, float) and 0.01 <= self.shift <= 100,
            f"SamplerConfig.shift is {self.shift!r:.40}; it must be from 0.01 to 100",
        )

    @property
    def steps_per_stage(self) -> int:
        """Denoising steps between two emitted chunks."""
        return self.num_steps // self.window_size

    @property
    def clean_range(self) -> int:
        """Chunks that a clean chunk sees, itself included, with -1 resolved."""
        return self.kv_range[-1] if self.clean_kv_range == -1 else self.clean_kv_range

    @property
    def history(self) -> int:
        """Clean chunks that must be kept so that every chunk sees all of its range."""
        return max(max(self.kv_range) - 1, self.clean_range if self.clean_range > 1 else 0)


@dataclass(frozen=True)
class MagiConfig:
    """One released (or shipped) model: transformer, autoencoder, sampler, and the video's form."""

    name: str
    dit: DiTConfig
    vae: VAEConfig = field(default_factory=VAEConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    frame_size: tuple[int, int] = (720, 720)
    fps: int = 24
    dtype: Literal["float32", "bfloat16"] = "bfloat16"

    def __post_init__(self) -> None:
        require(
            self.dit.latent_channels == self.vae.latent_channels,
            f"MagiConfig {self.name}: the transformer takes {self.dit.latent_channels} latent "
            f"channels but the VAE gives {self.vae.latent_channels}",
        )
        pair = isinstance(self.frame_size, tuple | list) and len(self.frame_size) == 2
        right = pair and all(type(s) is int for s in self.frame_size)
        require(
            right and max(self.frame_size) <= MOST["frame_size"],
            f"MagiConfig.frame_size is {self.frame_size!r:.60}; it must be (height, width) in "
            f"pixels, each up to {MOST['frame_size']:,}",
        )
        require(
            isinstance(self.fps, int | float) and 0 < self.fps <= 1000,
            f"MagiConfig.fps is {self.fps!r:.40}; it must be above 0, up to 1000",
        )
        unit = self.vae.patch_size * self.dit.patch
        for side, size in zip(("height", "width"), self.frame_size, strict=True):
            low, high = size // unit * unit, -(-size // unit) * unit
            require(
                size > 0 and size % unit == 0,
                f"MagiConfig.frame_size {side} is {size}; it must be divisible by {unit} "
                f"(nearest: {low or unit} or {high})",
            )
        require(
            self.dtype in ("float32", "bfloat16"),
            f"MagiConfig.dtype is {self.dtype!r}; it must be 'float32' or 'bfloat16'",
        )

    @property
    def frames_per_chunk(self) -> int:
        """Video frames in one chunk."""
        return self.sampler.chunk_width * self.vae.patch_length

    @property
    def latent_size(self) -> tuple[int, int]:
        """(H, W) of a latent frame."""
        return tuple(s // self.vae.patch_size for s in self.frame_size)  # type: ignore[return-value]

    def with_options(
        self,
        num_steps: int | None = None,
        window_size: int | None = None,
        frame_size: tuple[int, int] | None = None,
        dtype: Literal["float32", "bfloat16"] | None = None,
        history: int | None = None,
        sink: int | None = None,
    ) -> MagiConfig:
        """A copy with the options that a user may choose; ``None`` keeps what is there.

        ``history`` chunks, ``sink`` of them the video's first, is what the noisiest chunk sees;
        all ranges grow or shrink with it.
        """
        for name, value, least in (("history", history, 1), ("sink", sink, 0)):
            whole = isinstance(value, int) and not isinstance(value, bool)
            require(
                value is None or (whole and value >= least),
                f"{name} is {value!r:.40}; it must be a whole number of chunks from {least}",
            )
        longer = 0 if history is None else history + 1 - max(self.sampler.kv_range)
        sampler = replace(
            self.sampler,
            kv_range=tuple(max(1, r + longer) for r in self.sampler.kv_range),
            sink=self.sampler.sink if sink is None else sink,
            num_steps=self.sampler.num_steps if num_steps is None else num_steps,
            window_size=self.sampler.window_size if window_size is None else window_size,
        )
        return replace(
            self,
            sampler=sampler,
            frame_size=self.frame_size if frame_size is None else frame_size,
            dtype=self.dtype if dtype is None else dtype,
        )
