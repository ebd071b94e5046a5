"""From a text to what a world does: grammar, matching and confidence together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from magi_world.language import grammar
from magi_world.language.calibration import Calibration, calibrate, foreign_words
from magi_world.language.grammar import ONCE, Amount, GrammarError
from magi_world.language.matching import Encoder, Matcher
from magi_world.language.queue import CommandQueue
from magi_world.language.reading import MAX_CHUNKS, Reading, Step, meaning, refusal
from magi_world.language.vocabulary import FILLERS, LITTLE, STRENGTHENED, VOCABULARY
from magi_world.language.words import number, respell, stem, tokens
from magi_world.model.static_text import StaticTextEncoder
from magi_world.world.spec import WorldSpec

TYPO = 0.93  # confidence that is left after each word that was respelt
MAX_STEPS = 64
SHOWN = 8  # commands named in a refusal


@dataclass(frozen=True)
class _Part:
    """One command of a sentence, with what was said about its length."""

    command: str
    amount: Amount = ONCE
    confidence: float = 1.0


@dataclass(frozen=True)
class _Context:
    """now: what was said before this sentence.    dead: words after an "and" that mean nothing."""

    now: CommandQueue
    dead: set[tuple[str, ...]] = field(default_factory=set)


class _UnknownError(ValueError):
    """Words that mean no command of this world."""

    def __init__(self, words: Sequence[str], confidence: float, unknown: Sequence[str]) -> None:
        super().__init__(" ".join(words))
        self.words, self.confidence, self.unknown = words, confidence, unknown


class Interpreter:
    """Reads texts for one world; between two calls it keeps only what is slow to make.

    Args:
        spec: name, pace and commands of the world.
        encoder: its text encoder; the first text that is no command of the world makes it encode
            a few hundred words.
    """

    def __init__(self, spec: WorldSpec, encoder: Encoder) -> None:
        self.spec, self._encoder = spec, encoder
        self._commands = {c.name: c for c in spec.commands}

    @property
    def threshold(self) -> float:
        """Confidence below which nothing is obeyed: the world's own, else the measured one."""
        own = self.spec.threshold
        return self._calibration.threshold if own is None else own

    def read(self, text: str, now: CommandQueue | None = None) -> Reading:
        """What ``text`` means in the state ``now``, which "again", "back" and "keep going" need.

        Never raises for a str: what makes no sense is a `Reading` that is not obeyed.
        """
        if not self._commands:
            return self.verbatim(text)
        if text in self._commands:  # what agents and keys say
            return meaning(text, 1.0, [Step(text)])
        try:
            return self._read(text, now or CommandQueue(rest=self.spec.default_command))
        except GrammarError as error:
            return refusal(text, 0.0, str(error))
        except _UnknownError as error:
            return refusal(text, error.confidence, self._answer(error))

    def verbatim(self, text: str) -> Reading:
        """The text as it is, matched with nothing; a blank one means nothing."""
        if not text.strip():
            return refusal(text, 0.0, "nothing was said")
        return meaning(text, 1.0, [Step(text)])

    @cached_property
    def _matcher(self) -> Matcher:
        return Matcher(self.spec.commands, self._encoder)

    @cached_property
    def _calibration(self) -> Calibration:
        return calibrate(self._matcher, self.spec.commands)

    def _read(self, text: str, now: CommandQueue) -> Reading:
        words = tokens(text)
        if not any(w[0].isalnum() for w in words):
            raise GrammarError("nothing was said")
        words, respelt = self._spelt(words)
        parts = self._sentence(words, _Context(now))
        sure = min(p.confidence for p in parts) * TYPO**respelt
        if sure < self.threshold:
            raise _UnknownError([w for w in words if w[0].isalnum()], sure, ())
        return meaning(text, sure, self._steps(parts))

    def _spelt(self, words: Sequence[str]) -> tuple[list[str], int]:
        """Words with slips put right, and how many there were."""
        right = [self._respelt(w) for w in words]
        return right, sum(a != b for a, b in zip(right, words, strict=True))

    def _respelt(self, word: str) -> str:
        own = self._matcher.words
        if not word.isalpha() or word in own or word in self._english or number(word) is not None:
            return word
        if stem(word) in self._matcher.stems:
            return word
        if isinstance(self._encoder, StaticTextEncoder) and len(self._encoder.pieces(word)) == 1:
            return word
        return respell(word, own) or respell(word, VOCABULARY) or word

    @cached_property
    def _english(self) -> frozenset[str]:
        return VOCABULARY | FILLERS | LITTLE | foreign_words()

    def _sentence(self, words: Sequence[str], context: _Context) -> list[_Part]:
        parts: list[_Part] = []
        ahead: Amount | None = None  # "for 3 seconds, walk forward"
        repeated: tuple[tuple[str, ...], list[_Part]] | None = None  # "again, 3 times"
        for piece in grammar.clauses(words):
            if self._matcher.find(piece) is None and grammar.is_manners(piece):
                continue
            found = self._piece(piece, parts, context)
            if isinstance(found, Amount):
                if not parts and ahead is None:
                    ahead = found
                elif repeated is not None and found.length is None and not found.endless:
                    parts = self._special(repeated[0], found, repeated[1], context.now) or parts
                elif parts and not parts[-1].amount.given:
                    parts[-1] = replace(parts[-1], amount=found)
                else:
                    raise GrammarError(f'"{" ".join(piece)}" is a second duration; say one')
                continue
            kind = grammar.special(piece)
            repeated = (piece, parts) if kind in ("again", "all again") else None
            if ahead is not None and not found[0].amount.given:
                found, ahead = [replace(found[0], amount=ahead), *found[1:]], None
            parts = found
            if len(parts) > MAX_STEPS:
                raise GrammarError(f"that is more than {MAX_STEPS} steps; say it in parts")
        if not parts or ahead is not None:
            names = [c for c in self._commands if c != self.spec.default_command]
            example = f'; say for example "{names[0]}"' if names else ""
            raise GrammarError(f"no command was said{example}")
        return parts

    def _piece(
        self, words: tuple[str, ...], before: list[_Part], context: _Context, split: bool = True
    ) -> list[_Part] | Amount:
        """The parts of a sentence up to and with this piece, or an amount that stands alone.

        split: whether it may be several commands that "and" joins.
        """
        bare = grammar.strip(self._without_emphasis(words))
        for said in (words, bare):
            if (done := self._special(said, ONCE, before, context.now)) is not None:
                return done
        for said in (words, bare):
            if (name := self._named(said)) is not None:
                return [*before, _Part(name)]
        whole = self._with_amount_outside(bare)
        if whole is not None:
            return [*before, whole]
        if split and (several := self._joined(bare, before, context)) is not None:
            return several
        rest, amount = grammar.amount(bare)
        rest = grammar.steps_as_verb(bare, grammar.strip(rest))
        if not rest or grammar.is_manners(rest):
            return amount
        if (done := self._special(rest, amount, before, context.now)) is not None:
            return done
        if (name := self._named(rest)) is not None:
            return [*before, _Part(name, amount)]
        grammar.check(rest)
        if not amount.given and (row := self._in_a_row(rest)) is not None:
            return [*before, *row]
        score = self._matcher.score(rest)
        sure = self._calibration.confidence(score)
        if sure < self.threshold:
            raise _UnknownError(rest, sure, score.unknown)
        return [*before, _Part(score.command, amount, sure)]

    def _without_emphasis(self, words: tuple[str, ...]) -> tuple[str, ...]:
        """ "stay right there" -> stay; but "strafe right now" -> strafe right."""
        for i in range(1, len(words) - 1):
            if words[i] == "right" and words[i + 1] in STRENGTHENED:
                end = i + ((stem(words[i - 1]), "right") in self._matcher.pairs)
                return self._without_emphasis(words[:end] + words[i + 2 :])
        return words

    def _named(self, words: Sequence[str]) -> str | None:
        """The command whose phrase these words are."""
        found = self._matcher.find(words) if words else None
        return None if found is None else self._matcher.names[found]

    def _with_amount_outside(self, words: tuple[str, ...]) -> _Part | None:
        """A phrase with an amount before or after it: "walk forward and turn left twice"."""
        try:
            rest, amount = grammar.amount(words)
        except GrammarError:
            return None
        name = None if grammar.special(rest) else self._named(rest)
        together = f" {' '.join(rest)} " in f" {' '.join(words)} "
        return _Part(name, amount) if name is not None and amount.given and together else None

    def _joined(
        self, words: tuple[str, ...], before: list[_Part], context: _Context
    ) -> list[_Part] | None:
        """Commands on both sides of an "and", where each is understood by itself."""
        for at in [i for i, w in enumerate(words) if w == "and"]:
            left, right = words[:at], words[at + 1 :]
            if not left or not right or right in context.dead:
                continue
            try:
                first = self._piece(left, before, context, split=False)
            except (GrammarError, _UnknownError):
                continue
            if isinstance(first, Amount):
                continue
            try:
                second = self._piece(right, first, context)
            except (GrammarError, _UnknownError):
                context.dead.add(right)
                continue
            if not isinstance(second, Amount):
                return second
            if not first[-1].amount.given:
                return [*first[:-1], replace(first[-1], amount=second)]
        return None

    def _in_a_row(self, words: tuple[str, ...]) -> list[_Part] | None:
        """Phrases one after the other with nothing between: "turn left walk forward"."""
        if len(words) == len([w for w in words if self._named((w,))]) and len(words) > 1:
            return [_Part(str(self._named((w,)))) for w in words]
        for end in range(2, len(words) - 1):
            if (name := self._named(words[:end])) is None:
                continue
            rest = words[end:]
            last = self._named(rest)
            others = [_Part(last)] if last is not None else self._in_a_row(rest)
            if others is not None:
                return [_Part(name), *others]
        return None

    def _special(
        self, words: tuple[str, ...], amount: Amount, before: list[_Part], now: CommandQueue
    ) -> list[_Part] | None:
        """Again, back, keep going: the parts with what they stand for; None for other words."""
        kind = grammar.special(words)
        if kind is None:
            return None
        phrase = self._named(words)
        if kind == "go on":
            return self._go_on(amount, before, now, phrase)
        if kind == "back":
            return self._back(amount, before, now, phrase)
        if phrase is not None:
            return [*before, _Part(phrase, amount)]
        if before:
            again = before if kind == "all again" else before[-1:]
            if amount.length is not None or amount.endless:
                again = [replace(p, amount=amount) for p in again]
                return [*before, *again]
            return [*before, *(list(again) * self._times(amount, len(again)))]
        said = [_part(s) for s in now.said] or ([] if now.command is None else [_Part(now.command)])
        if not said:
            raise GrammarError("nothing was said before that could be done again")
        if amount.length is not None or amount.endless:
            said = [replace(p, amount=amount) for p in said]
            return said
        return said * self._times(amount, len(said))

    def _go_on(
        self, amount: Amount, before: list[_Part], now: CommandQueue, phrase: str | None
    ) -> list[_Part]:
        if before:
            if not amount.given:
                return [*before[:-1], replace(before[-1], amount=Amount(endless=True, given=True))]
            return [*before, _Part(before[-1].command, amount)]
        if now.to_come and not amount.given:
            return [_part(s) for s in now.to_come]
        if now.command is not None and (now.command != now.rest or phrase is None):
            return [_Part(now.command, amount)]
        if phrase is not None:
            return [_Part(phrase, amount)]
        raise GrammarError("nothing was said before that could go on")

    def _back(
        self, amount: Amount, before: list[_Part], now: CommandQueue, phrase: str | None
    ) -> list[_Part]:
        last = before[-1] if before else None if now.command is None else _Part(now.command)
        if last is not None and last.command == phrase:  # walk backward, "back": keep walking
            return [*before, _Part(phrase, amount)]
        command = None if last is None else self._commands.get(last.command)
        if last is not None and command is not None and command.opposite is not None:
            same = last.amount if before and not amount.given else amount
            return [*before, _Part(command.opposite, same)]
        if phrase is not None:
            return [*before, _Part(phrase, amount)]
        if last is None:
            raise GrammarError("nothing was said before that could be turned round")
        raise GrammarError(f'"{last.command}" has no opposite in this world')

    def _times(self, amount: Amount, parts: int) -> int:
        if amount.times * parts > MAX_STEPS:
            raise GrammarError(f"that is more than {MAX_STEPS} steps; say it in parts")
        return amount.times

    def _steps(self, parts: Sequence[_Part]) -> list[Step]:
        """Parts with their lengths in chunks; the last one has no end if none was given."""
        steps = []
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            if part.amount.endless and not last:
                raise GrammarError(
                    f'"{part.command}" is to go on without an end; nothing can come after it'
                )
            if part.amount.endless or (last and not part.amount.given):
                steps.append(Step(part.command))
            else:
                steps.append(Step(part.command, self._chunks(part)))
        return steps

    def _chunks(self, part: _Part) -> int:
        """How many chunks a part lasts; "twice" is twice as long as the command takes."""
        amount = part.amount
        once = float(self._commands[part.command].chunks)
        if amount.length is not None and amount.unit == "seconds":
            once = amount.length / self.spec.chunk_seconds
        elif amount.length is not None and amount.unit == "frames":
            once = amount.length / self.spec.frames_per_chunk
        elif amount.length is not None:
            once = amount.length
        if amount.times * once > MAX_CHUNKS:
            raise GrammarError(f"that would last more than {MAX_CHUNKS:,} chunks; say less")
        return max(1, round(amount.times * once))

    def _answer(self, error: _UnknownError) -> str:
        """Why these words are not obeyed, and what would be."""
        names = self.spec.things or tuple(self._commands)
        more = ", ..." if len(names) > SHOWN else ""
        knows = f"it knows {', '.join(names[:SHOWN])}{more}"
        if not error.unknown:
            return f'this world does not know "{error}"; {knows}'
        described = {stem(t) for t in tokens(f"{self.spec.description} {self.spec.scene}")}
        word = error.unknown[0]
        if stem(word) in described:
            return f'this world has no command about "{word}"; {knows}'
        return f'this world has no "{word}"; {knows}'


def _part(step: Step) -> _Part:
    """A step that was read before, as part of a new sentence."""
    if step.chunks is None:
        return _Part(step.command)
    return _Part(step.command, Amount(length=float(step.chunks), given=True))
