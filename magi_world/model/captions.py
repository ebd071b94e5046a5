"""Caption features that are kept: in memory for a session, in a file for other days and machines.

Shapes: L unmasked rows of a caption, C caption channels.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from magi_world.config import require
from magi_world.model.text import TextEncoder, check_prompt
from magi_world.weights import load_tensors, read_metadata, save_tensors

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
        self.size = size
        self._known: OrderedDict[str, Tensor] = OrderedDict()

    @property
    def channels(self) -> int:
        """C."""
        return self.encoder.channels

    def encode(self, prompt: str) -> Tensor:
        """Features (L, C) of a prompt; the same tensor each time, so do not write into it."""
        prompt = check_prompt(prompt)
        if prompt not in self._known:
            self._known[prompt] = self.encoder.encode(prompt)
            if len(self._known) > self.size:
                self._known.popitem(last=False)
        self._known.move_to_end(prompt)
        return self._known[prompt]


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
