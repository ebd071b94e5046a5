"""Cleaning of captions in front of T5, as MAGI-1's text encoder saw them in training.

The rules are those of DeepFloyd's published T5 cleaning (reference section 4, "Text"): captions
scraped from the web lose links, markup, file names, product ids and shop phrases. A prompt that
somebody types passes through the same rules, because the features must mean what they meant then.

Order matters: each rule sees what the ones before it left. Cleaning is applied twice, which is
not the same as once: what the first pass leaves at an end ("a b, -") is cut by the second.

One thing is not done: guessing at text that was decoded with a wrong character set, but for the
one such damage that is common (``_MISREAD``).
"""

from __future__ import annotations

import html
import html.entities
import re
import sys
import unicodedata
from html.parser import HTMLParser
from urllib.parse import unquote_plus

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
    text = unquote_plus(text).strip().lower()
    text = _apply(_LINKS, text)
    text = _text_of_html(text)
    text = _apply(_SYMBOLS, text)
    if len(_JOINERS.findall(text)) > _MOST_JOINERS:
        text = _JOINERS.sub(" ", text)
    text = html.unescape(html.unescape(_plain_characters(text)))
    # Stripped only at the end: a space there shields what is beside it from the rules for ends.
    return _apply(_ENDS, _apply(_LEFTOVERS, text)).strip()


def _apply(rules: _Rules, text: str) -> str:
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text


class _Text(HTMLParser):
    """Collects what a page would show."""

    HIDDEN = frozenset({"script", "style", "template", "rt", "rp"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.parts: list[str] = []
        self.opened: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.opened.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A tag that closes itself hides nothing."""

    def handle_endtag(self, tag: str) -> None:
        if tag in self.opened:  # what was opened inside it and left open ends with it
            while self.opened.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self.HIDDEN.isdisjoint(self.opened):
            self.parts.append(data)

    def handle_charref(self, name: str) -> None:
        code = int(name[1:], 16) if name[0] in "xX" else int(name)
        if not 0 < code <= sys.maxunicode:
            self.handle_data("\ufffd")
        else:
            self.handle_data(_windows_1252(code) if code < 256 else chr(code))

    def handle_entityref(self, name: str) -> None:
        known = html.entities.html5.get(f"{name};")
        self.handle_data(f"&{name}" if known is None else known)

    def unknown_decl(self, data: str) -> None:
        if data.upper().startswith("CDATA["):
            self.handle_data(data[len("CDATA[") :])


def _text_of_html(text: str) -> str:
    if "<" not in text and "&" not in text:
        return text
    parser = _Text()
    parser.feed(text)
    parser.close()
    return "".join(parser.parts)


def _windows_1252(byte: int) -> str:
    """The character of a byte; five bytes have none and stay control codes."""
    return bytes([byte]).decode("cp1252", "ignore") or chr(byte)


_LIGATURES = {
    "ĳ": "ij",
    "ŉ": "ʼn",
    "ǆ": "dž",
    "ǉ": "lj",
    "ǌ": "nj",
    "ǳ": "dz",
    "ﬀ": "ff",
    "ﬁ": "fi",
    "ﬂ": "fl",
    "ﬃ": "ffi",
    "ﬄ": "ffl",
    "ﬅ": "ſt",
    "ﬆ": "st",
}
_CHARACTERS = str.maketrans(
    _LIGATURES
    | {"\u3000": " "}
    | {chr(i): unicodedata.normalize("NFKC", chr(i)) for i in range(0xFF01, 0xFFF0)}
    | {chr(i): _windows_1252(i) for i in range(0x80, 0xA0)}  # control codes here, letters there
)
_QUOTES = str.maketrans({**dict.fromkeys("ʼ‘’‚‛", "'"), **dict.fromkeys("“”„‟", '"')})
_CONTROL = re.compile("[\u0000-\u0008\u000b\u000e-\u001f\u007f\u206a-\u206f\ufeff\ufff9-\ufffc]")


# General punctuation, UTF-8 read as Windows-1252: of such damage, what lower-casing leaves
# legible. A no-break space as its third byte has become a space.
_WINDOWS = {_windows_1252(i): i for i in range(0x80, 0xC0)} | {" ": 0xA0}
_MISREAD = re.compile(f"â€([{''.join(_WINDOWS)}])")


def _reread(match: re.Match[str]) -> str:
    return bytes([0xE2, 0x80, _WINDOWS[match[1]]]).decode()


def _plain_characters(text: str) -> str:
    """One spelling for characters that have several: widths, ligatures, quotes, accents."""
    text = _MISREAD.sub(_reread, text)
    text = text.translate(_CHARACTERS).translate(_QUOTES)
    return unicodedata.normalize("NFC", _CONTROL.sub("", text))
