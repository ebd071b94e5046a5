"""How well a picture fits a text, by an image-text model: goals in words for `TextGoal`.

Source: CLIP (Radford et al., 2021, arXiv 2103.00020); as a reward, Rocamonde et al., 2023
(arXiv 2310.12921). The model is open_clip's, an optional package.

Shapes: n pictures, H, W pixels, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

MODEL, PRETRAINED = "ViT-B-32", "laion2b_s34b_b79k"


class ImageText(Protocol):
    """A model that puts pictures and texts into one space."""

    def images(self, frames: np.ndarray) -> Tensor:
        """Features (n, D) of length 1 of frames (n, H, W, 3) uint8."""

    def text(self, text: str) -> Tensor:
        """Features (D,) of length 1."""


class OpenClip:
    """An open_clip model as `ImageText`.

    Args:
        model: with ``encode_image`` and ``encode_text``.
        preprocess: a PIL picture to a tensor (3, h, w).
        tokenizer: a list of texts to token numbers.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        preprocess: Callable[[Image.Image], Tensor],
        tokenizer: Callable[[list[str]], Tensor],
    ) -> None:
        self.model: Any = model.eval().requires_grad_(False)
        self.preprocess, self.tokenizer = preprocess, tokenizer
        self.device = next(model.parameters()).device

    @staticmethod
    def load(
        model: str = MODEL,
        pretrained: str | None = PRETRAINED,
        device: str | torch.device = "cpu",
    ) -> OpenClip:
        """One of open_clip's models; its weights are downloaded once.

        Raises:
            ImportError: open_clip is not installed, or does not work here.
        """
        try:
            import open_clip
        except (ImportError, RuntimeError) as error:  # torchvision for another torch: RuntimeError
            raise ImportError(
                f"a 'text:...' reward needs the package open_clip, which cannot be imported "
                f"({error}); pip install 'magi-world[clip]'"
            ) from error
        network, _, preprocess = open_clip.create_model_and_transforms(
            model, pretrained=pretrained, device=device
        )
        return OpenClip(network, preprocess, open_clip.get_tokenizer(model))

    def __deepcopy__(self, memo: dict[int, Any]) -> OpenClip:
        return self  # it never changes

    @torch.inference_mode()
    def images(self, frames: np.ndarray) -> Tensor:
        pictures = torch.stack([self.preprocess(Image.fromarray(f)) for f in frames])
        return normalize(self.model.encode_image(pictures.to(self.device)).float(), dim=-1)

    @torch.inference_mode()
    def text(self, text: str) -> Tensor:
        tokens = self.tokenizer([text]).to(self.device)
        return normalize(self.model.encode_text(tokens).float(), dim=-1)[0]
