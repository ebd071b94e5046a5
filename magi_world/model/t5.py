"""The T5-v1.1 encoder in front of MAGI-1, from the folder in which it is released.

transformers brings the architecture and the tokenizer; the weights are read by this package, as
strictly as any other, and nothing is fetched from a network.

Prompts pass through DeepFloyd's published cleaning (reference section 4, "Text"), as captions did
when MAGI-1 was trained: those scraped from the web lose links, markup, file names, product ids and
shop phrases there. Order matters, each rule sees what the ones before it left; and cleaning is
applied twice, which is not the same as once: what the first pass leaves at an end ("a b, -") is cut
by the second.

Shape legend
    L  tokens of a prompt, its end included           C  channels, 4096 for the XXL encoder
"""

from __future__ import annotations

import html
import re
import warnings
from pathlib import Path
from urllib.parse import unquote_plus

import torch
from torch import Tensor

from magi_world.checks import check_prompt
from magi_world.config import require
from magi_world.io.safetensors_io import WeightsError, find_nan, inspect_checkpoint, load_into
from magi_world.model.offload import offload as leave_when_idle

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
        offload: the weights lie in the host's memory and are on ``device`` only while it reads.

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
        offload: bool = False,
    ) -> None:
        try:
            import bs4  # noqa: F401 - prompts are cleaned with it and with ftfy
            import ftfy  # noqa: F401
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
            "cpu" if offload else device,
            dtype_of=lambda name, info: dtype,
            progress=progress,
            ignore=(*DECODER_PREFIXES, *(n for n in _TABLES if n != table)),
            stored_name=lambda name: table if name in _TABLES else name,
        )
        self.model.eval().requires_grad_(False)
        self.max_length, self.device = max_length, torch.device(device)
        if offload:
            leave_when_idle(self.model, self.device)

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
        features = self.model(input_ids=ids.to(self.device)).last_hidden_state[0].float()
        if not torch.isfinite(features).all():
            raise WeightsError(f"T5 gives features that are not finite; see {find_nan(self.model)}")
        return features


_DOMAIN_ENDINGS = "com|co|ru|net|org|edu|gov|it"
_FILE_ENDINGS = "png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4"
_HYPHENS = (
    "\u002d\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40\u301c\u3030\u30a0"
    "\ufe31\ufe32\ufe58\ufe63\uff0d"
)
# Strokes, phonetic extensions, enclosed and compatibility forms, ideographs, hexagrams.
_CJK = "\u31c0-\u31ef\u31f0-\u31ff\u3200-\u32ff\u3300-\u33ff\u3400-\u4dbf\u4dc0-\u4dff\u4e00-\u9fff"


def _link(start: str) -> str:
    """A scheme with its slashes, or a bare address that ends like a domain."""
    tail = rf"[a-zA-Z0-9.\-]+[.](?:{_DOMAIN_ENDINGS})[\w/-]*\b/?(?!@)"
    return rf"\b(?:{start}:(?:/{{1,3}}|[a-zA-Z0-9%])|{tail})"


_Rules = tuple[tuple[re.Pattern[str], str], ...]


def _rules(*pairs: tuple[str, str]) -> _Rules:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in pairs)


# A placeholder of some data sets, then addresses.
_LINKS = _rules(("<person>", "person"), (_link("https?"), ""), (_link("www"), ""))

_SYMBOLS = _rules(
    (r"@\w+\b", ""),  # nicknames
    (rf"[{_CJK}]+", ""),
    (rf"[{_HYPHENS}]+", "-"),
    ("[`´«»“”¨]", '"'),
    ("[‘’]", "'"),
    ("&quot;?", ""),
    ("&amp", ""),
    (r"\d{1,3}(?:\.\d{1,3}){3}", " "),  # IP addresses
    (r"\d:\d\d\s+$", ""),  # a time at the end, which articles carry
    (r"\\n", " "),  # a line break that was written out
    (r"#\d{1,3}\b", ""),
    (r"#\d{5,}\b", ""),
    (r"\b\d{6,}\b", ""),
    (rf"\S+\.(?:{_FILE_ENDINGS})", ""),
    ("[\"']{2,}", '"'),
    (r"\.{2,}", " "),
    (r"[#®•©™&@·º½¾¿¡§~()\[\]{}|\\/*]+", " "),
    (r"\s+\.\s+", " "),
)

_LEFTOVERS = _rules(
    (r"\b[a-zA-Z]{1,3}\d{3,15}\b", ""),  # jc6640
    (r"\b[a-zA-Z]+\d+[a-zA-Z]+\b", ""),  # jc6640vc
    (r"\b\d+[a-zA-Z]+\d+\b", ""),  # 6640vc231
    (r"(?:worldwide\s+)?(?:free\s+)?shipping", ""),
    (r"(?:free\s)?download(?:\sfree)?", ""),
    (r"\bclick\b\s(?:for|on)\s\w+", ""),
    (rf"\b(?:{_FILE_ENDINGS})(?:\simages?)?", ""),
    (r"\bpage\s+\d+\b", ""),
    (r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " "),  # j2d1a2a
    (r"\b\d+\.?\d*[xх×]\d+\.?\d*\b", ""),  # sizes; the second letter is a Cyrillic one
    (r"\b\s+:\s+", ": "),
    (r"(\D[,./])\b", r"\1 "),
    (r"\s+", " "),
)

_ENDS = _rules(
    (r"^[\"']([\w\W]+)[\"']$", r"\1"),  # quoted as a whole
    (r"^['_,\-:;]", ""),
    (r"['_,\-:+]$", ""),
    (r"^\.\S+$", ""),
)

# More of these than this make a slug, "this-is-my-cute-cat", not a hyphenated word.
_JOINERS = re.compile("[-_]")
_MOST_JOINERS = 3


def clean_caption(caption: str) -> str:
    """The text that T5 is given for a prompt: the rules, applied twice.

    Args:
        caption: any text; it may come out empty.

    Source: reference section 4 and ``caption_cleaning.json``.
    """
    return _clean_once(_clean_once(caption))


def _clean_once(text: str) -> str:
    import ftfy

    text = unquote_plus(text).strip().lower()
    text = _apply(_LINKS, text)
    text = _shown(text)
    text = _apply(_SYMBOLS, text)
    if len(_JOINERS.findall(text)) > _MOST_JOINERS:
        text = _JOINERS.sub(" ", text)
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    # Stripped only at the end: a space there shields what is beside it from the rules for ends.
    return _apply(_ENDS, _apply(_LEFTOVERS, text)).strip()


def _apply(rules: _Rules, text: str) -> str:
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text


def _shown(text: str) -> str:
    """What a page would show."""
    from bs4 import BeautifulSoup, MarkupResemblesLocatorWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MarkupResemblesLocatorWarning)
        return BeautifulSoup(text, features="html.parser").text
