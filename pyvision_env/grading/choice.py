"""Multiple choice: the option an answer commits to, never a letter met by accident.

The answer is cut into clauses (``clauses``), each letter in them is asserted, rejected or merely mentioned
(``mentions``), and here the asserted ones are weighed: one letter, or the last one after a correction ("A. Wait, B").
An answer that asserts two options, or one option's letter with another's text, names none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from string import ascii_uppercase

from pyvision_env.errors import UserError
from pyvision_env.grading import lexicon
from pyvision_env.grading.asked import Asked
from pyvision_env.grading.clauses import Clause, Token, split, tokenize
from pyvision_env.grading.cleaning import plain, strip_lead
from pyvision_env.grading.mentions import Mention, Standing, classify
from pyvision_env.grading.text import normalize_text

DEFAULT_LETTERS = "ABCDEFGH"
"""Letters of a question whose options are unknown."""

MAX_ASSERTIONS = 40
"""An answer that asserts letters more often is a list, even if they are all the same."""

_AROUND = " \n\t)]}.:,;-–—=*\"'“”‘’"


def extract_choice(
    answer: str, options: Sequence[str] = (), letters: str | Sequence[str] | None = None, question: str = ""
) -> str | None:
    """The letter of the one option that an answer commits to.

    Args:
        answer: The final answer's text.
        options: Texts of the options in letter order, where known; an answer equal to exactly one of them names it.
        letters: Letters of the options; from ``options`` where left out, A to H if those are unknown too.
        question: The question, where known: if it asks for the wrong option, "B is wrong" chooses B.

    Returns:
        An upper-case letter, or None if the answer commits to no option or to several.

    Raises:
        UserError: If ``letters`` holds anything but letters from A to Z.
    """
    allowed = "".join(letters).upper() if letters else ascii_uppercase[: len(options)] or DEFAULT_LETTERS
    if not (allowed.isascii() and allowed.isalpha()):
        raise UserError(f"The letters of options must be letters from A to Z, but {allowed!r} came")
    texts = _OptionTexts(_without_own_letters(options, allowed), allowed)
    text = plain(answer)
    named = texts.named(strip_lead(text)) or texts.named(text)
    if named and not (len(text) == 1 and text.upper() in allowed):
        return named.pop() if len(named) == 1 else None
    return _Reading(lexicon.in_plain_words(text), texts, Asked(question)).choice()


class _OptionTexts:
    """The options' texts, in the forms in which an answer may repeat them."""

    def __init__(self, options: Sequence[str], letters: str) -> None:
        self.letters = letters
        self._forms = [
            (letter, {_fold(form) for form in forms}, {normalize_text(form) for form in forms} - {""})
            for letter, option in zip(letters, options, strict=False)
            for forms in [(plain(option), lexicon.in_plain_words(plain(option)))]
        ]
        self.longest = 2 * max((len(option) for option in options), default=0) + 40

    def named(self, text: str) -> set[str]:
        """Letters of the options that ``text`` equals: word for word, or else with articles and punctuation aside."""
        if len(text) > self.longest:
            return set()
        said, normal = _fold(text), normalize_text(text)
        exact = {letter for letter, folded, _ in self._forms if said and said in folded}
        return exact or {letter for letter, _, normalized in self._forms if normal in normalized}


def _fold(text: str) -> str:
    return " ".join(text.split()).casefold().rstrip(".!")


class _Reading:
    """One answer: its mentions, and which of them is the choice."""

    def __init__(self, text: str, texts: _OptionTexts, asked: Asked) -> None:
        self._text, self._texts = text, texts
        self._tokens = tokenize(text, texts.letters, lambda letter, said: letter in texts.named(said))
        self._clauses = split(self._tokens)
        self._mentions = classify(self._clauses, asked, self._says_own_text)

    def choice(self) -> str | None:
        kept: list[Mention] = []
        labels = {mention.letter for mention in self._mentions if mention.standing == Standing.LABEL}
        asserted = [mention for mention in self._mentions if mention.standing >= Standing.WEAK]
        by_clause = {number: list(found) for number, found in groupby(asserted, key=lambda mention: mention.clause)}
        pending = retracted = False
        for number, clause in enumerate(self._clauses):
            here = by_clause.get(number, [])
            if _corrects(clause, bool(kept)):
                pending = True
                retracted |= kept != [] and clause.tokens[0].word in lexicon.RETRACTIONS
            if here and pending:
                firmest = max((mention.standing for mention in kept), default=Standing.WEAK)
                if min(firmest, Standing.BARE) <= max(mention.standing for mention in here):
                    kept = []
                elif {mention.letter for mention in here} != {mention.letter for mention in kept}:
                    return None
            if here:
                pending = retracted = False
            kept += here
        return None if retracted else self._weighed(kept, labels)

    def _weighed(self, kept: list[Mention], labels: set[str]) -> str | None:
        """The one letter that is firmly asserted, if no other letter or option text speaks against it."""
        if not kept or len(kept) > MAX_ASSERTIONS:
            return None
        firm = [mention for mention in kept if mention.standing >= Standing.BARE] or kept
        chosen = {mention.letter for mention in firm}
        if all(mention.standing <= Standing.BARE for mention in firm):
            chosen |= labels
        if len(chosen) != 1 or any(self._contradicted(mention) for mention in firm):
            return None
        return chosen.pop()

    def _says_own_text(self, token: Token) -> bool:
        return token.letter in self._named_after(token)

    def _contradicted(self, mention: Mention) -> bool:
        """Whether the text beside the letter is another option's."""
        token = mention.token
        sides = [self._named_after(token)]
        if token.wrapped:
            start = max(self._text.rfind("\n", 0, token.start), token.start - self._texts.longest, 0)
            sides.append(self._texts.named(self._text[start : token.start].strip(_AROUND + "([{")))
        return any(named and mention.letter not in named for named in sides)

    def _named_after(self, token: Token) -> set[str]:
        """Letters of the options whose text follows a letter, up to the end of its sentence, line or the answer."""
        rest = self._text[token.end : token.end + self._texts.longest].lstrip(_AROUND)
        ends = [len(rest), *(end for mark in ("\n", ". ", ";", ",") if (end := rest.find(mark)) >= 0)]
        for end in sorted(set(ends), reverse=True):
            if named := self._texts.named(rest[:end].rstrip(_AROUND)):
                return named
        return set()


def _corrects(clause: Clause, after_choice: bool) -> bool:
    """Whether a clause takes back what came before: "wait", "actually B", "no, B" - but not "no other option"."""
    words = clause.tokens
    for i, token in enumerate(words):
        if token.letter or token.word not in lexicon.CORRECTIONS:
            continue
        if token.word != "no":
            return True
        following = words[i + 1] if i + 1 < len(words) else None
        if not i and (
            following is None or following.letter or following.word in {"it", "the", "i", "my", "wait", "this", "that"}
        ):
            return after_choice
    return False


def _without_own_letters(options: Sequence[str], letters: str) -> list[str]:
    pairs = list(zip(options, letters, strict=False))
    own = [re.match(rf"\s*(?:\({letter}\)|{letter}[.):])\s*", option) for option, letter in pairs]
    if len(pairs) == len(options) and all(own):
        return [option[match.end() :] for match, option in zip(own, options, strict=True) if match]
    return list(options)
