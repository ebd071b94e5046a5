"""The T5-v1.1 encoder in front of MAGI-1, from the folder in which it is released.

transformers brings the architecture and the tokenizer; the weights are read by this package, as
strictly as any other, and nothing is fetched from a network.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from magi_world.config import require
from magi_world.model.caption_cleaning import clean_caption
from magi_world.model.text import check_prompt
from magi_world.weights import WeightsError, find_nan, inspect_checkpoint, load_into

# The released file is that of the whole model; only its encoder is wanted.
DECODER_PREFIXES = ("decoder.", "lm_head.")
# One table of token features, under any of these names.
_TABLES = ("shared.weight", "encoder.embed_tokens.weight")


class T5TextEncoder:
    """Prompts to the features of T5's encoder.

    Args:
        folder: ``t5-v1_1-xxl/``: config.json, the tokenizer's files, and weights as
            ``pytorch_model.bin`` or safetensors, whole or in shards.
        device: where it runs.
        dtype: precision that it is held in and computes in, float32 or bfloat16.
        max_length: tokens that are read, end token included; the rest of a prompt is cut off.
        progress: True shows a bar while loading.

    Raises:
        ImportError: transformers or sentencepiece is not installed.
        FileNotFoundError: no such folder, or no weights in it.
        ValueError: weights or tokenizer that are damaged or are not T5's; float16, in which the
            activations of T5 overflow.
    """

    def __init__(
        self,
        folder: str | Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        max_length: int = 800,
        progress: bool = False,
    ) -> None:
        try:
            import sentencepiece  # noqa: F401 - the tokenizer's file is read with it
            from transformers import AutoTokenizer, T5Config, T5EncoderModel
        except ImportError as error:
            raise ImportError(
                f"the T5 text encoder needs {error.name}: pip install 'magi-world[magi1]'"
            ) from error
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"no T5 folder at {folder}: config.json is looked for there")
        require(
            dtype in (torch.float32, torch.bfloat16),
            f"T5TextEncoder.dtype is {dtype}; it must be torch.float32 or torch.bfloat16 (T5 "
            "overflows in float16)",
        )
        require(max_length > 0, f"T5TextEncoder.max_length is {max_length}; it must be positive")
        try:
            config = T5Config.from_pretrained(folder, local_files_only=True)
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # whatever transformers raises for a bad file
            raise ValueError(f"{folder} is not a folder of T5: {error}") from error
        with torch.device("meta"):
            self.model = T5EncoderModel(config)
        stored = inspect_checkpoint(folder)
        table = next((n for n in _TABLES if n in stored), _TABLES[0])
        load_into(
            self.model,
            folder,
            device,
            dtype_of=lambda name, info: dtype,
            progress=progress,
            ignore=(*DECODER_PREFIXES, *(n for n in _TABLES if n != table)),
            stored_name=lambda name: table if name in _TABLES else name,
        )
        self.model.eval().requires_grad_(False)
        self.max_length = max_length

    @property
    def channels(self) -> int:
        """C, 4096 for the XXL encoder."""
        return self.model.config.d_model

    @torch.no_grad()
    def encode(self, prompt: str) -> Tensor:
        """Features (L, C) float32 of the cleaned prompt, end token included.

        Raises:
            ValueError: see :func:`magi_world.model.text.check_prompt`; or a weight is not finite.
        """
        text = clean_caption(check_prompt(prompt))
        # Unpadded: a masked row changes no other row, so it need not be computed.
        ids = self.tokenizer(
            text, max_length=self.max_length, truncation=True, return_tensors="pt"
        )["input_ids"]
        features = self.model(input_ids=ids.to(self.model.device)).last_hidden_state[0].float()
        if not torch.isfinite(features).all():
            raise WeightsError(f"T5 gives features that are not finite; see {find_nan(self.model)}")
        return features
