"""Long texts in parts: `chunk=N[:OVERLAP]` in an encoder's name. Where a text is cut is part of the Space.

A part is a run of words that the tower reads as at most N tokens, its special tokens and its prompt included, measured
with the tower's own tokenizer; the next part begins with the last words of this one, at most OVERLAP tokens of them.
A word is cut, between characters, only where it alone is too long. A text that fits is one part, left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate

from embedder import naming
from embedder.errors import UsageError
from embedder.naming import EncoderName

OPTION = "chunk"
MAX_CHARS = 8 << 20
LEAST, MOST = 4, 1 << 20
RULE = "words/1"
FORM = re.compile(r"([0-9]{1,7})(?::([0-9]{1,7}))?")
WORD = re.compile(r"\S+")
CHARS_PER_TOKEN = 64
REMEMBERED = 100_000

Span = tuple[int, int]
Count = Callable[[str], int]


@dataclass(frozen=True)
class Chunking:
    """`tokens`: the most in a part; `overlap`: the most that a part shares with the one before."""

    tokens: int
    overlap: int = 0

    @classmethod
    def of(cls, name: EncoderName) -> Chunking | None:
        """Read the option `chunk` of an encoder's name; None where it is not given.

        Raises:
            UsageError: not N or N:OVERLAP; N below 4; or an overlap of more than half of N.
        """
        text = name.options.get(OPTION)
        if text is None:
            return None
        found = FORM.fullmatch(text)
        tokens, overlap = (int(found[1]), int(found[2] or 0)) if found else (0, 0)
        if not LEAST <= tokens <= MOST or 2 * overlap > tokens:
            raise UsageError(
                f"chunk must be N or N:OVERLAP, not {text!r}", where=str(name),
                hint=f"tokens in a part, {LEAST} or more, and how many of them the next repeats, at most half",
            )  # fmt: skip
        return cls(tokens, overlap)

    def as_json(self) -> dict[str, int | str]:
        """Return what becomes a part of the Space."""
        return {"tokens": self.tokens, "overlap": self.overlap, "rule": RULE}


def with_chunk(name: str, chunk: str) -> str:
    """Return an encoder's name with the option `chunk`. Raises `UsageError` where it has another one."""
    parsed = naming.parse(name)
    if parsed.options.get(OPTION, chunk) != chunk:
        raise UsageError(
            f"chunk is {parsed.options[OPTION]} in the encoder's name and {chunk} beside it", where=name,
            hint="give it once",
        )  # fmt: skip
    changed = replace(parsed, options={**parsed.options, OPTION: chunk})
    Chunking.of(changed)
    return str(changed)


class Splitter:
    """Cuts texts for one tower; `count` gives the tokens that it makes of a piece, special ones included."""

    def __init__(self, chunking: Chunking, count: Count, where: str) -> None:
        """Measure the tower.

        Raises:
            UsageError: it reads fewer than N tokens, so that it would cut every part without a word.
        """
        longest = count("a b " * chunking.tokens)
        if longest < chunking.tokens:
            raise UsageError(
                f"this encoder reads at most {longest} tokens, so chunk={chunking.tokens} would lose some", where=where,
                hint=f"chunk={longest}, or fewer",
            )  # fmt: skip
        # of as many tokens as the tower reads at most, it does not say whether there were more
        self.tokens, self.overlap = min(chunking.tokens, longest - 1), chunking.overlap
        self.special = max(0, count("a") - 1)
        self._count = count
        self._words: dict[str, int] = {}

    def __call__(self, text: str) -> list[Span]:
        """Return where the parts of a text begin and end: ascending, none of them blank, at least one."""
        if self.fits(text):
            return [(0, len(text))]
        words = [found.span() for found in WORD.finditer(text)]
        return self._cut(text, words) or [(0, len(text))]

    def fits(self, piece: str) -> bool:
        """Say whether a piece is at most N tokens; one of 64 N characters is not, and not tokenised in vain."""
        return len(piece) <= CHARS_PER_TOKEN * self.tokens and self._count(piece) <= self.tokens

    def _cut(self, text: str, words: list[Span]) -> list[Span]:
        """Take as many words as fit, again and again; each part goes on beyond the last."""
        costs = [0, *accumulate(self._cost(text[begin:end]) for begin, end in words)]
        found: list[Span] = []
        at = 0
        while at < len(words):

            def holds(stop: int, at: int = at) -> bool:
                return stop == at or self.fits(text[words[at][0] : words[stop - 1][1]])

            room = self.tokens - self.special
            stop = _last(holds, at, len(words), _reach(costs, at, room))
            if stop == at:
                found += self._letters(text, *words[at])
                at += 1
                continue
            found.append((words[at][0], words[stop - 1][1]))
            at = stop if stop == len(words) else self._back(text, words, costs, at, stop)
        return found

    def _back(self, text: str, words: list[Span], costs: list[int], at: int, stop: int) -> int:
        """Return the word at which the part after `at:stop` begins; it must hold one more word than is repeated."""
        if not self.overlap:
            return stop
        begin = stop
        while begin > at + 1 and costs[stop] - costs[begin - 1] <= self.overlap:
            begin -= 1
        while begin < stop and self._tokens(text[words[begin][0] : words[stop - 1][1]]) > self.overlap:
            begin += 1
        while begin < stop and not self.fits(text[words[begin][0] : words[stop][1]]):
            begin += 1
        return begin

    def _letters(self, text: str, begin: int, end: int) -> list[Span]:
        """Cut one word that alone is too long; a single character always counts as fitting."""
        found: list[Span] = []
        guess = self.tokens
        while begin < end:

            def holds(stop: int, begin: int = begin) -> bool:
                return stop <= begin + 1 or self.fits(text[begin:stop])

            stop = _last(holds, begin, end, begin + guess)
            found.append((begin, stop))
            begin, guess = stop, stop - begin
        return found

    def _tokens(self, piece: str) -> int:
        return self._count(piece) - self.special

    def _cost(self, word: str) -> int:
        """Return about how many tokens a word adds; words come again, so that most are looked up."""
        known = self._words.get(word)
        if known is None:
            known = max(1, self._tokens(word[: CHARS_PER_TOKEN * self.tokens]))
            if len(self._words) >= REMEMBERED:
                self._words.clear()
            self._words[word] = known
        return known


def _reach(costs: list[int], at: int, room: int) -> int:
    """Return the furthest stop whose summed costs fit into `room`."""
    stop = at
    while stop + 1 < len(costs) and costs[stop + 1] - costs[at] <= room:
        stop += 1
    return stop


def _last(holds: Callable[[int], bool], low: int, limit: int, guess: int) -> int:
    """Return the largest stop in low…limit that holds, given that `low` does and that none holds after one that fails.

    Tried first: the guess and its neighbours, in steps that double.
    """
    high, step = limit + 1, 1
    at = min(max(guess, low), limit)
    while high - low > 1:
        if holds(at):
            low = at
            at = at + step if high == limit + 1 else (low + high) // 2
            at = min(at, limit)
        else:
            high = at
            at = max(low + 1, at - step) if step and low < high - step else (low + high) // 2
        step *= 2
        if not low < at < high:
            at = (low + high) // 2
    return low
