"""Captions as features: who makes them, what is put in front of them, and where they are kept.

Shape legend
    L  unmasked rows of a caption           C  caption channels (4096 for T5-XXL)

No padding travels through this package: a caption is (L, C), and L = 0 is the null caption, whose
features lie in the transformer's own weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from magi_world.checks import check_prompt
from magi_world.config import require
from magi_world.io.safetensors_io import load_tensors, read_metadata, save_tensors
from magi_world.model.dit import Memo


class TextEncoder(Protocol):
    """What turns a prompt into caption features."""

    @property
    def channels(self) -> int:
        """C, the width of the features."""

    def encode(self, prompt: str) -> Tensor:
        """Features (L, C) float32 of one prompt: its unmasked rows only, L at least 1.

        Raises:
            ValueError: see `magi_world.checks.check_prompt`; or the encoder cannot answer for it.
        """


@dataclass(frozen=True)
class SpecialTokens:
    """Features that MAGI-1 was trained to see in front of a caption (reference section 2).

    caption, logo: (1, C).
    other: (100, C). Rows: 0 transition, 1 HQ, 2 static first frames, 3 dynamic first frames,
        4 borderness, 7..14 duration 1..8, 15 3-D model, 16 2-D anime.
    """

    caption: Tensor
    logo: Tensor
    other: Tensor

    TRANSITION, HQ, STATIC, DYNAMIC, BORDERNESS, MODEL_3D, ANIME_2D = 0, 1, 2, 3, 4, 15, 16
    FIRST_DURATION = 7
    DURATIONS = 8

    def __post_init__(self) -> None:
        rows = self.FIRST_DURATION + self.DURATIONS
        require(
            self.other.dim() == 2 and len(self.other) >= rows,
            f"SpecialTokens.other has shape {tuple(self.other.shape)}; it must be (100, channels)",
        )
        for name in ("caption", "logo"):
            shape, right = tuple(getattr(self, name).shape), (1, self.channels)
            require(shape == right, f"SpecialTokens.{name} has shape {shape}; it must be {right}")

    @property
    def channels(self) -> int:
        """C."""
        return self.other.shape[1]

    @property
    def unwanted(self) -> Tensor:
        """(4, C), what a video without a caption is to have, so that guidance leads away from it:
        borders, transitions, logos and written captions (NEG_PROMPT of the released code)."""
        rows = (self.other[row][None] for row in (self.BORDERNESS, self.TRANSITION))
        return torch.cat([*rows, self.logo, self.caption])

    @staticmethod
    def load(path: str | Path, device: str | torch.device = "cpu") -> SpecialTokens:
        """Read ``special_tokens.npz``; float32, but rounded to float16 as the model saw them.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or an array is missing or of the wrong shape.
        """
        try:
            # Never unpickled: an npz may hold objects, these arrays are plain.
            with np.load(path, allow_pickle=False) as arrays:
                raw = {name: np.asarray(arrays[f"{name}_token{s}"]) for name, s in _ARRAYS}
        except (ValueError, EOFError, BadZipFile) as error:
            raise ValueError(f"{path} is not a readable npz file: {error}") from error
        except KeyError as error:
            raise ValueError(
                f"{path} has no array {error}; it must have caption_token, logo_token and "
                "other_tokens"
            ) from error
        tables = {
            name: torch.from_numpy(array.astype(np.float16)).float().to(device)
            for name, array in raw.items()
        }
        return SpecialTokens(**tables)


@dataclass(frozen=True)
class PromptTokens:
    """Which special features stand in front of a caption; the released default is HQ alone.

    static_first_frames, dynamic_first_frames: the video begins at rest, or in motion.
    borderness: it may have borders.    hq: high quality.    model_3d, anime_2d: its style.
    duration: how much of the video is left; a stream is endless, and says so.
    negative: the null caption begins with `SpecialTokens.unwanted`.
    """

    static_first_frames: bool = False
    dynamic_first_frames: bool = False
    borderness: bool = False
    hq: bool = True
    model_3d: bool = False
    anime_2d: bool = False
    duration: bool = True
    negative: bool = False

    @classmethod
    def of(cls, value: PromptTokens | Mapping[str, Any] | None) -> PromptTokens:
        """From a mapping of some of the fields, as JSON has them; None is the default.

        Raises:
            ValueError: neither, or a field that there is not.
        """
        if value is None or isinstance(value, PromptTokens):
            return value or cls()
        known = [field.name for field in fields(cls)]
        require(
            isinstance(value, Mapping) and set(value) <= set(known),
            f"prompt_tokens is {value!r:.80}; it may have {', '.join(known)}",
        )
        return cls(**value)

    def __post_init__(self) -> None:
        for field in fields(self):
            flag = getattr(self, field.name)
            require(
                isinstance(flag, bool),
                f"PromptTokens.{field.name} is {flag!r:.40}; it must be True or False",
            )
        require(
            not (self.static_first_frames and self.dynamic_first_frames),
            "PromptTokens.static_first_frames and dynamic_first_frames are both True; a video "
            "begins at rest or in motion",
        )

    @property
    def rows(self) -> list[int]:
        """Rows of `SpecialTokens.other`, from the front to the caption."""
        put = (  # one after the other in front of the caption, so that the last one is first
            (self.static_first_frames, SpecialTokens.STATIC),
            (self.dynamic_first_frames, SpecialTokens.DYNAMIC),
            (self.borderness, SpecialTokens.BORDERNESS),
            (self.hq, SpecialTokens.HQ),
            (self.model_3d, SpecialTokens.MODEL_3D),
            (self.anime_2d, SpecialTokens.ANIME_2D),
        )
        return [row for wanted, row in reversed(put) if wanted]


_ARRAYS = (("caption", ""), ("logo", ""), ("other", "s"))


def with_special_tokens(
    caption: Tensor,
    special: SpecialTokens,
    chunks_left: int | None,
    caption_length: int,
    tokens: PromptTokens = PromptTokens(),
) -> Tensor:
    """Put special features, by default HQ, then the duration feature, in front of a caption.

    Args:
        caption: (L, C).
        special: the features.
        chunks_left: chunks of the video after this one; 0 = this is the last. None = an endless
            stream, which counts as more than the table knows.
        caption_length: rows to keep; what is pushed beyond is cut off at the end.
        tokens: which features, besides the duration.

    Returns:
        (min(L + features, caption_length), C): duration, features, caption.

    Source: reference section 4, "Text".
    """
    most = SpecialTokens.DURATIONS - 1
    left = most if chunks_left is None else min(chunks_left, most)
    require(left >= 0, f"chunks_left is {chunks_left}; it must be 0 (the last chunk) or more")
    rows = [*([SpecialTokens.FIRST_DURATION + left] if tokens.duration else []), *tokens.rows]
    if rows and max(rows) >= len(special.other):
        raise ValueError(f"{tokens} needs row {max(rows)} of the special tokens, which have fewer")
    front = special.other[rows].to(caption)
    return torch.cat([front, caption])[:caption_length]


class SpecialTokenEncoder:
    """A text encoder whose captions begin as an endless MAGI-1 stream's do: duration 8, then HQ.

    Args:
        encoder: what encodes the prompt itself, T5 or its saved features.
        special: the features in front.
        caption_length: rows that the transformer was trained to read at most.
        tokens: which features.

    Raises:
        ValueError: encoder and special features differ in width.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        special: SpecialTokens,
        caption_length: int,
        tokens: PromptTokens = PromptTokens(),
    ) -> None:
        require(
            encoder.channels == special.channels,
            f"the special tokens have {special.channels} channels; the text encoder gives "
            f"{encoder.channels}, and both must be the same",
        )
        self.encoder = encoder
        self.special = special
        self.caption_length = caption_length
        self.tokens = tokens

    @property
    def channels(self) -> int:
        """C."""
        return self.encoder.channels

    def encode(self, prompt: str) -> Tensor:
        """Features (L, C) of the prompt with the special ones in front."""
        caption = self.encoder.encode(prompt)
        return with_special_tokens(caption, self.special, None, self.caption_length, self.tokens)


class EnhancedEncoder:
    """A text encoder in front of which a prompt is rewritten, e.g. by a language model.

    Args:
        encoder: what reads the new prompt.
        enhance: called once a prompt. Sessions replay what the user said, so the same prompt must
            be rewritten in the same way for a replay to be exact.
    """

    def __init__(self, encoder: TextEncoder, enhance: Callable[[str], str]) -> None:
        require(callable(enhance), f"enhance is {enhance!r:.80}; it must be callable, str -> str")
        self.encoder, self.enhance = encoder, enhance

    @property
    def channels(self) -> int:
        """C."""
        return self.encoder.channels

    def encode(self, prompt: str) -> Tensor:
        """Features (L, C) of the prompt as ``enhance`` writes it.

        Raises:
            ValueError: it wrote nothing that can be encoded.
        """
        written = self.enhance(check_prompt(prompt))
        try:
            return self.encoder.encode(check_prompt(written))
        except ValueError as error:
            raise ValueError(f"enhance({prompt!r:.80}) gave {written!r:.80}: {error}") from error


_FORMAT = "magi-world captions 1"


class CaptionCache:
    """A text encoder that asks another one only once a prompt.

    Args:
        encoder: who is asked.
        size: prompts to remember; the one unused for longest is forgotten first.
    """

    def __init__(self, encoder: TextEncoder, size: int = 256) -> None:
        require(size > 0, f"CaptionCache.size is {size}; it must be at least 1")
        self.encoder = encoder
        self._known = Memo(size)

    @property
    def channels(self) -> int:
        """C."""
        return self.encoder.channels

    def encode(self, prompt: str) -> Tensor:
        """Features (L, C) of a prompt; the same tensor each time, so do not write into it."""
        return self._known.get(check_prompt(prompt), lambda: self.encoder.encode(prompt))


def save_captions(path: str | Path, captions: Mapping[str, Tensor]) -> None:
    """Save features computed once, so that T5 need not be loaded, or share the GPU, again.

    Args:
        path: a safetensors file to write.
        captions: prompt -> features (L, C), all of one width.

    Raises:
        ValueError: nothing to save, a bad prompt, or features of the wrong form.
    """
    require(len(captions) > 0, "captions is empty; there is nothing to save")
    channels = next(iter(captions.values())).shape[-1]
    for prompt, features in captions.items():
        check_prompt(prompt)
        require(
            features.dim() == 2 and len(features) > 0 and features.shape[1] == channels,
            f"the features of {prompt!r:.80} have shape {tuple(features.shape)}; they must be "
            f"(rows, {channels})",
        )
    tensors = {str(i): features for i, features in enumerate(captions.values())}
    prompts = json.dumps(list(captions), ensure_ascii=False)
    save_tensors(path, tensors, {"format": _FORMAT, "prompts": prompts})


def load_captions(path: str | Path, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """What :func:`save_captions` saved: prompt -> features (L, C) float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or was not written by :func:`save_captions`.
    """
    metadata = read_metadata(path)
    require(
        metadata.get("format") == _FORMAT,
        f"{path} has format {metadata.get('format')!r}; it must be {_FORMAT!r}, as save_captions "
        "writes it",
    )
    tensors = load_tensors(path, device=device)
    prompts = json.loads(metadata["prompts"])
    return {prompt: tensors[str(i)].float() for i, prompt in enumerate(prompts)}


class SavedCaptions:
    """A text encoder that answers from a file of :func:`save_captions`, and knows nothing else.

    Args:
        path: the file.
        device: where the features are kept.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_captions`.
    """

    _SHOWN = 10

    def __init__(self, path: str | Path, device: str | torch.device = "cpu") -> None:
        self.path = Path(path)
        self.captions = load_captions(path, device)

    @property
    def channels(self) -> int:
        """C."""
        return next(iter(self.captions.values())).shape[1]

    def encode(self, prompt: str) -> Tensor:
        """Features (L, C) of a saved prompt, matched letter for letter.

        Raises:
            ValueError: the prompt is not in the file; with those that are.
        """
        prompt = check_prompt(prompt)
        if prompt not in self.captions:
            known = ", ".join(repr(p) for p in list(self.captions)[: self._SHOWN])
            more = f", and {len(self.captions) - self._SHOWN} more"
            raise ValueError(
                f"prompt {prompt!r:.80} is not in {self.path}, which has {known}"
                f"{more if len(self.captions) > self._SHOWN else ''}; encode it with T5 and save it"
            )
        return self.captions[prompt]
