"""Texts as words: folding, numbers, stems, distance between spellings."""

from __future__ import annotations

import re
import unicodedata

from magi_world.language.vocabulary import NUMBERS

_CONTRACTIONS = (
    (r"\bcan'?t\b|\bcannot\b", "can not"),
    (r"\bwon'?t\b", "will not"),
    (r"\b(do|does|did|is|are|should|would|could|must|need)n'?t\b", r"\1 not"),
    (r"\blet'?s\b", "let us"),
    (r"'(d|ll|m|re|ve|s)\b", ""),
    (r"\bgonna\b", "going to"),
    (r"\bwanna\b", "want to"),
)
_TOKEN = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+|[,;.!?:]")


def fold(text: str) -> str:
    """Lower case, without accents; typographic signs as typewriter ones."""
    text = text.replace("’", "'").replace("‘", "'").replace("`", "'").replace("…", " . ")
    text = re.sub(r"->|=>|→|>", " then ", text).replace("&", " and ").replace("+", " and ")
    text = "".join(
        c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c)
    )
    for pattern, plain in _CONTRACTIONS:
        text = re.sub(pattern, plain, text)
    return text.replace("\n", " ; ")


def tokens(text: str) -> list[str]:
    """Words, numbers and punctuation of a text, folded; hyphens and quotes only part words."""
    return _TOKEN.findall(fold(text))


def number(token: str) -> float | None:
    """The number that a word or figure says; None if it says none."""
    if token[0].isdigit():
        return float(token)
    known = NUMBERS.get(token)
    return None if known is None else float(known)


def stem(word: str) -> str:
    """A word without its ending: turning, turned, turns -> turn; backwards -> backward."""
    for ending, least in (("ing", 3), ("ed", 3), ("es", 4), ("s", 3)):
        root = word.removesuffix(ending)
        if root != word and len(root) >= least and not word.endswith("ss"):
            double = len(root) > 3 and root[-1] == root[-2] and root[-1] not in "ls"
            word = root[:-1] if double and ending in ("ing", "ed") else root
            break
    return word.removesuffix("e") if len(word) > 3 else word


def distance(one: str, other: str, limit: int) -> int:
    """Letters to insert, delete, replace or swap with their neighbour; ``limit`` + 1 beyond it."""
    if abs(len(one) - len(other)) > limit:
        return limit + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one):
        earlier, before, row = before, row, [i + 1]
        for j, b in enumerate(other):
            best = min(before[j] + (a != b), before[j + 1] + 1, row[j] + 1)
            if i and j and a == other[j - 1] and b == one[i - 1]:
                best = min(best, earlier[j - 1] + 1)
            row.append(best)
        if min(row) > limit:
            return limit + 1
    return row[-1]


def respell(word: str, known: frozenset[str]) -> str | None:
    """The one known word that a misspelt one must be, or None.

    One slip in words of four letters and more, two in words of seven and more, letters that changed
    places in words of three; the first letter must be right where there are two slips, and in words
    of three and four letters.
    """
    if len(word) < 3 or not word.isalpha():
        return None
    found: dict[int, list[str]] = {}
    for right in sorted(known):
        limit = 2 if min(len(right), len(word)) >= 7 else 1
        if len(right) < 4 and sorted(right) != sorted(word):
            continue
        if min(len(right), len(word)) <= 4 and right[0] != word[0]:
            continue
        slips = distance(word, right, limit)
        if slips < 2 or (slips <= limit and right[0] == word[0]):
            found.setdefault(slips, []).append(right)
    if not found:
        return None
    best = found[min(found)]
    if len(best) > 1:  # a swap keeps all letters, and first letters are mostly right
        swapped = [r for r in best if sorted(r) == sorted(word)]
        best = swapped or [r for r in best if r[0] == word[0]]
    return best[0] if len({stem(r) for r in best}) == 1 else None
