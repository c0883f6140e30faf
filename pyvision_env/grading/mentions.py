"""What each letter in an answer is doing there: asserted as the choice, rejected, or merely mentioned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

from pyvision_env.grading import lexicon
from pyvision_env.grading.asked import Asked
from pyvision_env.grading.clauses import Clause, Token


class Standing(IntEnum):
    """How firmly an answer stands by a letter. Announced and bare letters weigh the same; both outrank weak ones."""

    REJECTED = 0
    MENTIONED = 1
    LABEL = 2
    """Marked like an option ("(A)", "A."): in a list of options it contradicts a letter that nothing announced."""
    WEAK = 3
    BARE = 4
    ANNOUNCED = 5


@dataclass(frozen=True, slots=True)
class Mention:
    """A letter, its standing, its place in the text, and the number of its clause."""

    letter: str
    standing: Standing
    token: Token
    clause: int


@dataclass(slots=True)
class _Group:
    """Letters joined by commas, "and" or "or", with the words on both sides of them in their clause."""

    tokens: list[Token]
    left: list[str]
    right: list[str]
    clause: int


def classify(clauses: Sequence[Clause], asked: Asked, says_own_text: Callable[[Token], bool]) -> list[Mention]:
    """The mentions of an answer in order.

    Args:
        clauses: The answer's clauses.
        asked: What the question asks for.
        says_own_text: Whether a letter is followed by the very text of its option, which is then no new predicate.
    """
    groups = [group for number, clause in enumerate(clauses) for group in _groups(clause, number, asked)]
    found: list[Mention] = []
    for place, group in enumerate(groups):
        last = place + 1 == len(groups) or groups[place + 1].clause != group.clause
        judged = _predicated(group, clauses, asked) if last else None
        for part, standing in _standings(group, asked, says_own_text(group.tokens[-1])):
            for token in part:
                found.append(
                    Mention(token.letter or "", _settled(standing, judged, token, clauses, group), token, group.clause)
                )
    return found


def _settled(
    standing: Standing, predicate: Standing | None, token: Token, clauses: Sequence[Clause], group: _Group
) -> Standing:
    clause = clauses[group.clause]
    if standing == Standing.REJECTED or predicate == Standing.REJECTED:
        return Standing.REJECTED
    if clause.stop == "?" or _conditional(group.clause, clauses):
        return Standing.MENTIONED
    if standing == Standing.MENTIONED and token.labels:
        at_end = token.wrapped and token is clauses[-1].tokens[-1]
        return Standing.WEAK if at_end else Standing.LABEL
    return standing


def _conditional(number: int, clauses: Sequence[Clause]) -> bool:
    """Whether a clause holds only under a condition: "B would be right if ...", not "if I had to choose, B"."""
    for near in (number, number + 1, number - 1):
        if not 0 <= near < len(clauses) or clauses[near].sentence != clauses[number].sentence:
            continue
        words = clauses[near].words[:3]
        if words[:1] and words[0] in lexicon.CONDITIONS and "i" not in words:
            return near >= number or "would" in clauses[number].words
    return False


def _groups(clause: Clause, number: int, asked: Asked) -> list[_Group]:
    groups: list[_Group] = []
    words: list[str] = []
    for token in clause.tokens:
        if token.letter is None:
            words.append(token.word)
            continue
        joined = groups and all(
            word in lexicon.COORDINATORS or word in lexicon.OPTIONS or word in {",", "、", "the", "then"}
            for word in words
        )
        if joined:
            groups[-1].tokens.append(token)
        else:
            if groups:
                groups[-1].right = words
                words = words[_consumed(words, asked) :]
            groups.append(_Group([token], words, [], number))
        words = []
    if groups:
        groups[-1].right = words
    return groups


def _standings(group: _Group, asked: Asked, own_text: bool) -> list[tuple[list[Token], Standing]]:
    left, hedged = _left(group.left, asked), any(word in lexicon.HEDGES for word in group.left)
    right = Standing.BARE if own_text else _right(group.right, asked)
    if left == Standing.REJECTED:
        return [(group.tokens, Standing.MENTIONED if right == Standing.REJECTED else left)]
    if right == Standing.REJECTED:
        # "B, A is wrong" speaks of A alone; so does "the answer is B, A and C are wrong" of all but B.
        singular = group.right[:1] and group.right[0] in {"is", "was", "has", "does"}
        cut = -1 if singular and group.left[-1:] != ["both"] else 1
        if len(group.tokens) > 1 and (singular or left == Standing.ANNOUNCED):
            kept = _Group(group.tokens[:cut], group.left, [], group.clause)
            return [*_standings(kept, asked, False), (group.tokens[cut:], right)]
        return [(group.tokens, right)]
    if left == Standing.MENTIONED and _uncertain(group.left, asked):
        return [(group.tokens, Standing.MENTIONED)]
    standing = max(left, Standing.MENTIONED)
    if left == Standing.BARE and right != Standing.BARE:
        standing = Standing.WEAK if group.left[-1:] and group.left[-1] in lexicon.OPTIONS else Standing.MENTIONED
    if right > Standing.BARE or right == Standing.WEAK:
        after_place = group.left[-1:] and group.left[-1] in lexicon.SPATIAL | {"with", "from", "like", "than", "by"}
        standing = standing if after_place else max(standing, right)
    return [(group.tokens, Standing.WEAK if hedged and standing > Standing.WEAK else standing)]


def _uncertain(words: Sequence[str], asked: Asked) -> bool:
    return any(word in lexicon.DOUBTS or asked.rejects(words, i) for i, word in enumerate(words))


def _left(words: list[str], asked: Asked) -> Standing:
    """What the words before a letter make of it; BARE if they are links only, which leaves it to the words after."""
    against = sum(asked.rejects(words, i) and word != "out" for i, word in enumerate(words))
    if words[:1] == ["neither"] or "nor" in words:
        against = 1
    if against % 2:
        return Standing.REJECTED
    if against or any(word in lexicon.DOUBTS for word in words):
        return Standing.MENTIONED
    i, named, copula = len(words), False, False
    skipped = (
        lexicon.LINKS
        | lexicon.THOUGHTS
        | lexicon.BREAKS
        | lexicon.CORRECTIONS
        | lexicon.OPTIONS
        | {"both", "either", ","}
    )
    while i and (words[i - 1] in skipped or words[i - 1] in asked.bad):
        i -= 1
        named |= words[i] in lexicon.OPTIONS
        copula |= words[i] in lexicon.AUXILIARIES or words[i] in {":", "="}
        if words[i] in asked.bad:
            return Standing.ANNOUNCED
    if not i:
        return Standing.BARE if not named or words[-1] in lexicon.OPTIONS or copula else Standing.MENTIONED
    word = words[i - 1]
    if word in lexicon.ANSWERS or word in lexicon.CHOOSING or word in lexicon.GOOD:
        return Standing.ANNOUNCED
    if copula and _relative(words[:i]):
        return Standing.ANNOUNCED
    return Standing.WEAK if words[-1] in lexicon.OPTIONS - {"one", "statement"} else Standing.MENTIONED


def _relative(words: list[str]) -> bool:
    """Whether "the answer to ..." or "the option that ..." runs up to here."""
    nouns = lexicon.ANSWERS | lexicon.OPTIONS
    return any(word in nouns and after in lexicon.RELATIVES for word, after in pairwise(words[-16:]))


def _right(words: list[str], asked: Asked) -> Standing:
    """What the predicate after a letter makes of it; BARE if there is none, MENTIONED if it says something else."""
    i, linked = 0, False
    while i < len(words) and words[i] in lexicon.LINKS | {"both", "too", "as"} - {":"}:
        linked |= words[i] in lexicon.AUXILIARIES
        if words[i] == "only" or words[i] == "one":
            break
        i += 1
    hedged = any(word in lexicon.HEDGES for word in words[:i])
    good = Standing.WEAK if hedged else Standing.ANNOUNCED
    if "have" in words[:i] and {"would", "could", "might"} & set(words[:i]):
        return Standing.MENTIONED
    if i == len(words):
        return good if linked and words[-1] in lexicon.GOOD_NOUNS else Standing.BARE
    word = words[i]
    if asked.rejects(words, i) and (linked or word in lexicon.NOT_WORDS or word in lexicon.BAD):
        negated = word in lexicon.NOT_WORDS and any(
            asked.rejects(words, j) for j in range(i + 1, min(i + 4, len(words)))
        )
        return Standing.MENTIONED if negated else Standing.REJECTED
    if word in asked.bad or word in lexicon.NOT_WORDS:
        return good
    if word in lexicon.GOOD:
        after = words[i + 1] if i + 1 < len(words) else ""
        beside = word == "right" and after and after not in lexicon.GOOD_NOUNS | lexicon.GOOD | {"here"}
        return Standing.MENTIONED if beside or not (linked or not after) else good
    if linked and (word in lexicon.GOOD_NOUNS or (i and words[i - 1] in lexicon.OPTIONS)):
        return good
    return Standing.WEAK if word in lexicon.FITS else Standing.MENTIONED


def _consumed(words: list[str], asked: Asked) -> int:
    """How many of the words between two letters belong to the first: "A is wrong | the answer is B"."""
    if _right(words, asked) != Standing.REJECTED:
        return 0
    return next(i + 1 for i in range(len(words)) if asked.rejects(words, i))


def _predicated(group: _Group, clauses: Sequence[Clause], asked: Asked) -> Standing | None:
    """What a clause further on says of this letter: "A, the red car, is wrong", "A: incorrect"."""
    home = clauses[group.clause]
    verdicts = lexicon.LINKS | lexicon.BAD | lexicon.GOOD | lexicon.NOT_WORDS | lexicon.GOOD_NOUNS
    for distance, clause in enumerate(clauses[group.clause + 1 : group.clause + 4]):
        if any(token.letter for token in clause.tokens):
            return None
        words = clause.words[1:] if clause.words[0] in {"which", "that", "and", "but"} else clause.words
        verdict = all(word in verdicts for word in words) and any(word in lexicon.BAD for word in words)
        near = clause.sentence == home.sentence
        if (near and words and words[0] in lexicon.AUXILIARIES) or (verdict and not distance):
            return _right(words, asked)
        if (
            clause.sentence == home.sentence
            and all(word in verdicts for word in words)
            and _right(words, asked) == Standing.REJECTED
            and any(word in lexicon.GOOD for word in words)
        ):
            return Standing.REJECTED
    return None
