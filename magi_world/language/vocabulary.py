"""The words and turns of phrase that the grammar knows, folded as `words.fold` leaves them."""

from __future__ import annotations

from typing import Literal

Phrase = tuple[str, ...]
Kind = Literal["again", "all again", "back", "go on"]
Unit = Literal["seconds", "chunks", "frames"]


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


def phrases(text: str) -> tuple[Phrase, ...]:
    """Phrases that are parted by bars, the longest first."""
    found = [tuple(part.split()) for part in text.replace("\n", " ").split("|")]
    return tuple(sorted(filter(None, found), key=len, reverse=True))


# Said for manners or rhythm, anywhere in a sentence; they mean nothing to a world.
FILLERS = words(
    """please now okay ok just kindly thanks thank hey hi hello well so yes yeah then maybe perhaps
    quickly slowly gently carefully simply really actually immediately straightaway pls plz
    completely totally fully entirely exactly"""
)
# Words that carry little by themselves.
LITTLE = words(
    """the a an to towards toward of and at in on with your my you me it its is be over this that
    there here up off for from by bit little some one i we us our while as do"""
)
# What "right" only strengthens, unless the world turns right with the word before it.
STRENGTHENED = words("there here now away")
# A clause of these alone asks for nothing.
MANNERS = words(
    """no you and very much there first firstly second secondly third thirdly next also instead
    good great"""
)
NUMBERS = {
    name: number
    for number, name in enumerate(
        (
            *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
            *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen"),
            *("seventeen", "eighteen", "nineteen", "twenty"),
        )
    )
} | {"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "hundred": 100, "thousand": 1000}
QUANTITIES: dict[Phrase, float] = {
    ("a", "quarter", "of", "a"): 0.25,
    ("half", "a"): 0.5,
    ("half", "an"): 0.5,
    ("a", "half"): 0.5,
    ("a", "couple", "of"): 2.0,
    ("a", "couple"): 2.0,
    ("a", "few"): 3.0,
    ("several",): 3.0,
    ("a", "dozen"): 12.0,
}
OFTEN = {"once": 1, "twice": 2, "thrice": 3}
UNITS: dict[str, tuple[Unit, float]] = {
    **dict.fromkeys(("second", "seconds", "sec", "secs", "s"), ("seconds", 1.0)),
    **dict.fromkeys(("minute", "minutes", "min", "mins"), ("seconds", 60.0)),
    **dict.fromkeys(("hour", "hours"), ("seconds", 3600.0)),
    **dict.fromkeys(("chunk", "chunks", "step", "steps", "turn", "turns"), ("chunks", 1.0)),
    **dict.fromkeys(("frame", "frames"), ("frames", 1.0)),
}
VAGUE: dict[Phrase, float] = {  # seconds
    ("a", "little", "while"): 2.0,
    ("a", "little", "bit"): 1.0,
    ("a", "long", "time"): 10.0,
    ("a", "moment"): 1.0,
    ("a", "bit"): 1.0,
    ("a", "little"): 1.0,
    ("a", "while"): 3.0,
    ("some", "time"): 3.0,
}
# What no world measures.
MEASURES = words(
    """degree degrees deg radian radians meter meters metre metres m cm km foot feet ft yard yards
    inch inches mile miles pixel pixels percent"""
)
ENDLESS = phrases(
    """until i say stop|until i tell you to stop|until i say so|until i stop you|
    until i say otherwise|until told otherwise|until you are told to stop|until further notice|
    until something else is said|till i say stop|till i tell you to stop|and do not stop|
    do not stop|without stopping|without end|for ever|forever|endlessly|indefinitely|continuously|
    all the time|the whole time|non stop|nonstop|and keep going|and keep on|and keep doing that|
    and keep at it|as long as you can|on and on"""
)
# What may stand before and after a command and means nothing.
LEADS = phrases(
    """could you|can you|would you|will you|you can|you should|you must|you have to|you need to|
    i want you to|i would like you to|i like you to|i need you to|i want to|i would like to|
    i like to|i need to|we should|we must|let us|let me|try to|be so kind and|be so kind as to|
    i would like to see you|i want to see you|i would like|i want|give me|let me see|
    would you mind to|time to|it is time to|
    your task is to|your job is to|please do|start to|begin to|start by|start|begin|begin by|
    end by|finish by|
    go and|come and|try and|first|firstly|second|secondly|third|lastly|finally|at last|
    to begin with|to start|at first|
    in the end|now|and|then|but|so|next|also|instead"""
)
TAILS = phrases(
    """for me|if you please|if you can|if possible|at once|thank you|
    thank you very much|first|as well|too|and then|will you|would you|could you|can you|
    in the end|and|then|next|instead|again|once again|in total|in all|at the same time|more"""
)
SEPARATORS = phrases(
    """and then|but then|and after that|after that|and afterwards|afterwards|and after this|
    after this|after which|and next|followed by|and finally|and lastly|finally|lastly|then|
    thereafter|before you|before|subsequently"""
)
SPECIAL: dict[Kind, tuple[Phrase, ...]] = {
    "again": phrases(
        """again|once more|one more time|once again|do it again|do that again|do this again|repeat|
        repeat that|repeat it|repeat this|the same|the same again|same again|do the same|
        do the same again|another time|another one|one more|more|that again|do so again|encore|
        the same thing again|and again|redo"""
    ),
    "all again": phrases(
        """all of that again|do all of that again|all of it again|do it all again|everything again|
        repeat everything|repeat all of that|repeat all|the whole thing again|
        repeat the whole thing|from the start|start over|all again|repeat from the start|
        do everything again"""
    ),
    "back": phrases(
        """back|and back|back again|the other way|the other way round|go the other way|
        the other direction|in the other direction|the opposite|do the opposite|the reverse|
        opposite|undo|undo that|take that back|and back again|the opposite way|
        go in the other direction|now the other way|other way"""
    ),
    "go on": phrases(
        """keep going|go on|continue|carry on|keep on|keep at it|keep doing that|keep doing it|
        keep doing this|do not stop|never stop|keep it up|as before|like before|proceed|resume|
        continue like that|continue as before|go on like that|on and on|stay on course|
        keep that up|more of that|more of the same|continue that|continue with that"""
    ),
}
QUESTIONS = words(
    "what why how who whom whose which where is are am was were does did has have had"
)
CONDITIONS = words(
    "if when whenever unless until till because since although except provided after"
)
# All of them: they are spelt right, and a misspelt word may be one of them.
VOCABULARY = (
    frozenset(
        word
        for table in (ENDLESS, LEADS, TAILS, SEPARATORS, tuple(VAGUE), *SPECIAL.values())
        for phrase in table
        for word in phrase
    )
    | MEASURES
    | QUESTIONS
    | CONDITIONS
    | MANNERS
    | frozenset(UNITS)
    | frozenset(OFTEN)
)
