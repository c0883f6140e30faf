"""What a question wants: for "Which option is wrong?" the wrong one is the choice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from pyvision_env.grading import lexicon


class Asked:
    """Words that the question itself asks for: where it wants the wrong option, "wrong" rejects nothing."""

    def __init__(self, question: str) -> None:
        words = re.findall(r"\w+", lexicon.in_plain_words(question).lower())
        self.bad = lexicon.BAD & set(words)
        self.negated = {after for before, after in pairwise(words) if before == "not"}

    def rejects(self, words: Sequence[str], i: int) -> bool:
        """Whether the word at ``i`` turns its clause against a letter."""
        word = words[i]
        if word in lexicon.NOT_WORDS:
            following = next((later for later in words[i + 1 : i + 4] if later not in lexicon.AUXILIARIES), None)
            return following is None or following not in self.negated
        return (word in lexicon.BAD or word in lexicon.REJECTING) and word not in self.bad
