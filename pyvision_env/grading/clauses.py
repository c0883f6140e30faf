"""An answer cut into clauses of words and option letters, so that a "not" reaches as far as it does for a reader."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pyvision_env.grading import lexicon

_TOKEN = re.compile(r"\.{2,}|…|[-=]>|\w+(?:['’]\w+)*|\n|[^\w\s]")
_QUOTES = frozenset("\"'“”‘’«»`*#|")
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
_STOPS = frozenset(".!?;\n…")
_ARROWS = frozenset({"->", "=>", "→"})
_DASHES = frozenset("-–—")
_ABBREVIATIONS = frozenset({"ans", "fig", "mr", "mrs", "dr", "st", "vs"})
# Right after a letter these make it part of something else: "C++", "C#", "B^2", "A-team".
_GLUE = frozenset("+#%@^_°'’-‐‑")


class Token(NamedTuple):
    """One word, option letter or punctuation mark; ``letter`` is set (upper case) where it may stand for an option."""

    word: str
    start: int
    end: int
    letter: str | None = None
    wrapped: bool = False
    labels: bool = False


@dataclass(slots=True)
class Clause:
    """Tokens without punctuation; ``joint`` is the mark or word before it, ``stop`` the mark after it."""

    joint: str
    sentence: int
    tokens: list[Token] = field(default_factory=list)
    stop: str = ""
    words: list[str] = field(default_factory=list)


def tokenize(text: str, letters: str, says_own_text: Callable[[str, str], bool]) -> list[Token]:
    """Tokens of ``text``, with those marked that may stand for one of ``letters``.

    Args:
        text: The answer, in plain words.
        letters: The options' letters, upper case.
        says_own_text: Whether a letter's option reads like a text: "B.red car" names B only if that is what B says.
    """
    found = [Token(match[0].lower(), match.start(), match.end()) for match in _TOKEN.finditer(text)]
    return [
        _marked(found, i, text, letters, says_own_text)
        if token.word.upper() in letters and len(token.word) == 1
        else token
        for i, token in enumerate(found)
    ]


def _marked(tokens: list[Token], i: int, text: str, letters: str, says_own_text: Callable[[str, str], bool]) -> Token:
    token = tokens[i]
    letter = token.word.upper()
    before = tokens[i - 1].word if i else ""
    after = tokens[i + 1].word if i + 1 < len(tokens) else ""
    wrapped = before in _OPENING and after in _CLOSING
    marked = token._replace(letter=letter, wrapped=wrapped, labels=wrapped or (after in tuple(".):")))
    if wrapped:
        return marked
    tight = text[token.end : token.end + 2]
    if (tight[:1] in _GLUE and tight[1:].isalnum()) or (tight[:1] in "+#%@^_°" and tight):
        return token
    if token.start and text[token.start - 1] in _GLUE | {".", "\\"} and text[max(0, token.start - 2)].isalnum():
        return token
    if tight[:1] in (".", ",") and tight[1:].isalnum():
        listed = tight[0] == "," and i + 2 < len(tokens) and tokens[i + 2].word.upper() in letters
        return marked if listed or says_own_text(letter, text[token.end + 1 : token.end + 400]) else token
    if not re.match(r"[^\S\n]+\w", text[token.end : token.end + 2]):
        return marked
    upper = text[token.start].isupper()
    if before in lexicon.OPTIONS and (upper or letter not in "AI" or after in lexicon.AFTER_A):
        return marked
    if letter == "I" or not upper:
        return token
    another = len(after) == 1 and after.upper() in letters and text[token.end + 1].isupper()
    return marked if letter != "A" or after in lexicon.AFTER_A or another else token


def split(tokens: Sequence[Token]) -> list[Clause]:
    """Cut tokens at sentence ends, commas, dashes, conjunctions and around brackets; lists of letters stay whole."""
    return _Splitter(tokens).run()


class _Splitter:
    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tokens
        self.sentence = 0
        self.open = [Clause("", 0)]
        self.done: list[Clause] = []

    def run(self) -> list[Clause]:
        for i, token in enumerate(self.tokens):
            self._take(i, token)
        while self.open:
            self._close("")
        return sorted((clause for clause in self.done if clause.tokens), key=lambda clause: clause.tokens[0].start)

    def _close(self, stop: str) -> None:
        clause = self.open.pop()
        clause.stop = stop
        clause.words = [token.word for token in clause.tokens if token.letter is None]
        self.done.append(clause)

    def _break(self, mark: str, stop: str = "") -> None:
        self._close(stop)
        self.open.append(Clause(mark, self.sentence))

    def _take(self, i: int, token: Token) -> None:
        word, clause = token.word, self.open[-1]
        if token.letter:
            clause.tokens.append(token)
        elif word in _STOPS or word.startswith(".."):
            self._stop(word, clause)
        elif word in _OPENING:
            if not self._wraps(i):
                self.open.append(Clause("(", self.sentence))
        elif word in _CLOSING:
            self._end_bracket(i)
        elif word == "," or word in lexicon.COORDINATORS or word in {"then", "、"}:
            self._coordinate(i, token)
        elif word in {":", "="}:
            if self._ends_with_letter(clause) or not self._announces(clause):
                self._break(":")
        elif word in _ARROWS:
            self._break("so")
        elif word in _DASHES:
            if word == "—" or not self._is_hyphen(i):
                self._break("-")
        elif word not in _QUOTES:
            if self._begins_clause(i, word, clause):
                self._break(word)
            self.open[-1].tokens.append(token)

    def _is_hyphen(self, i: int) -> bool:
        inside = 0 < i < len(self.tokens) - 1
        return (
            inside and self.tokens[i - 1].end == self.tokens[i].start and self.tokens[i].end == self.tokens[i + 1].start
        )

    def _stop(self, word: str, clause: Clause) -> None:
        last = clause.tokens[-1].word if clause.tokens else ""
        if word == "\n" and (not clause.tokens or (last in {":"} and not clause.tokens[-1].letter)):
            return
        if word == "." and last in _ABBREVIATIONS:
            return
        self.sentence += 1
        self._break(word, word)

    def _wraps(self, i: int) -> bool:
        return i + 1 < len(self.tokens) and self.tokens[i + 1].wrapped

    def _end_bracket(self, i: int) -> None:
        if i and self.tokens[i - 1].wrapped:
            return
        if len(self.open) > 1:
            self._close(")")
            if self._ends_with_letter(self.open[-1]):
                self._break(")")
        else:
            self._break(")")

    def _coordinate(self, i: int, token: Token) -> None:
        """Go on with a list of letters ("A, B or C"), or begin a clause."""
        clause = self.open[-1]
        after = next((t for t in self.tokens[i + 1 : i + 9] if not self._is_link(t)), None)
        between = self._since_letter(clause)
        listing = (
            after is not None
            and after.letter is not None
            and between is not None
            and not (token.word == "," and clause.tokens[0].word in lexicon.ASIDE)
            and not (token.word == "," and self._closed(clause) and self.tokens[i + 1].word not in lexicon.CLOSERS)
        )
        if listing or (token.word in {"both", "either", "also", "maybe", "then"}):
            clause.tokens.append(token)
        elif token.word in {"+", "&", "/"} and between is None:
            return
        else:
            self._break(token.word)
            if token.word in lexicon.CLOSERS:
                self.open[-1].tokens.append(token)

    def _is_link(self, token: Token) -> bool:
        if token.letter:
            return False
        word = token.word
        return (
            word in lexicon.COORDINATORS or word in lexicon.OPTIONS or word in _QUOTES | _OPENING | {"the", "options"}
        )

    @staticmethod
    def _since_letter(clause: Clause) -> list[Token] | None:
        """Tokens after the clause's last letter if they only continue a list; None without such a letter."""
        for back in range(1, min(6, len(clause.tokens)) + 1):
            token = clause.tokens[-back]
            if token.letter:
                return clause.tokens[len(clause.tokens) - back + 1 :]
            if token.word not in lexicon.COORDINATORS:
                return None
        return None

    @staticmethod
    def _closed(clause: Clause) -> bool:
        """Whether the running list has had its last "and", "or" or "nor"."""
        return len(clause.tokens) > 1 and any(t.word in lexicon.CLOSERS for t in clause.tokens[-3:-1])

    @staticmethod
    def _ends_with_letter(clause: Clause) -> bool:
        return bool(clause.tokens) and clause.tokens[-1].letter is not None

    @staticmethod
    def _announces(clause: Clause) -> bool:
        """Whether a colon after these words announces the letter that follows: "Incorrect answer: B"."""
        if any(token.letter for token in clause.tokens[-12:]):
            return False
        cues = lexicon.ANSWERS | lexicon.OPTIONS | lexicon.CHOOSING | lexicon.GOOD | lexicon.BAD | lexicon.REJECTING
        if not any(token.word in cues for token in clause.tokens[-12:]):
            return False
        clause.tokens.append(Token(":", clause.tokens[-1].end, clause.tokens[-1].end))
        return True

    def _begins_clause(self, i: int, word: str, clause: Clause) -> bool:
        after_letter = self._ends_with_letter(clause)
        if word in lexicon.BREAKS or word in {"correction", "wait", "sorry", "oops"}:
            return True
        if word in lexicon.REASONS or (word in lexicon.ASIDE and any(token.letter for token in clause.tokens[-12:])):
            return after_letter or word in lexicon.ASIDE
        following = next((t for t in self.tokens[i + 1 : i + 6] if not self._is_link(t)), None)
        return word in lexicon.NOT_WORDS and after_letter and following is not None and following.letter is not None
