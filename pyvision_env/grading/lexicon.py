"""What words do to the option letters around them: name an answer, affirm, reject, correct, or end a clause."""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PHRASES = {
    "ruled out": "excluded",
    "rule out": "exclude",
    "ruling out": "excluding",
    "crossed out": "excluded",
    "cross out": "exclude",
    "struck out": "excluded",
    "thrown out": "excluded",
    "anything but": "not",
    "all but": "not",
    "far from": "not",
    "too bad": "",
    "no longer": "not",
    "none other than": "",
    "nothing but": "",
    "nothing other than": "",
    "no other than": "",
    "instead of": "except",
    "rather than": "except",
    "other than": "except",
    "as opposed to": "except",
    "better than": "except",
    "compared to": "versus",
    "compared with": "versus",
    "apart from": "except",
    "aside from": "except",
    "no doubt": "",
    "without a doubt": "",
    "without doubt": "",
    "not only": "",
    "at first": "initially",
    "first thought": "initially",
    "first guess": "initially",
    "go with": "choose",
    "going with": "choose",
    "went with": "choose",
    "settle on": "choose",
    "opt for": "choose",
    "vote for": "choose",
    "left with": "leaves",
    "which means": "so",
    "that means": "so",
    "this means": "so",
    "which leaves": "so leaves",
    "i mean": "correction",
    "scratch that": "no",
    "never mind": "no",
    "on second thought": "correction",
    "on second thoughts": "correction",
    "on reflection": "correction",
    "or rather": "correction",
    "make that": "correction",
    "let me reconsider": "correction",
    "changed my mind": "correction",
    "change my mind": "correction",
    "changing my answer": "correction",
    "change my answer": "correction",
    "due to": "because",
    "based on": "because",
}
_PHRASE = re.compile(r"\b(?:" + "|".join(sorted(_PHRASES, key=len, reverse=True)) + r")\b", re.IGNORECASE)
_CHINESE = {
    "不正确": " wrong ",
    "不对": " wrong ",
    "不可能": " wrong ",
    "排除": " exclude ",
    "不应该": " not ",
    "错误": " wrong ",
    "正确": " correct ",
    "不是": " not ",
    "而是": " but ",
    "不选": " not choose ",
    "不": " not ",
    "错": " wrong ",
    "答案": " answer ",
    "选项": " option ",
    "选择": " choose ",
    "应该": " should ",
    "所以": " so ",
    "因此": " so ",
    "因为": " because ",
    "但": " but ",
    "或者": " or ",
    "或": " or ",
    "和": " and ",
    "选": " choose ",
    "是": " is ",
    "为": " is ",
    "我": " i ",
    "的": " ",
    "最终": " final ",
}
_CHINESE_WORD = re.compile("|".join(sorted(_CHINESE, key=len, reverse=True)))
_NOT = re.compile(r"\b(?:can|wo|sha|ai|\w+)n['’]t\b|\bcannot\b|\b(?:do|does|did|is|was|would|could|should)nt\b", re.I)
_SHORT = re.compile(r"(?<=\w)['’](s|re|d|ll|m|ve)\b", re.I)


def in_plain_words(text: str) -> str:
    """Text with contractions, set phrases and the Chinese words of an answer replaced by the words below."""
    text = _CHINESE_WORD.sub(lambda found: _CHINESE[found[0]], text)
    text = _PHRASE.sub(lambda found: _PHRASES[found[0].lower()], _NOT.sub(" not", text))
    return _SHORT.sub(lambda found: " is" if found[1] in "sS" else " would", text)


AUXILIARIES = _words(
    "is are was be been being am must may might can could would should will shall has have had do does did to appears "
    "appear looks look seems seem remains"
)
HEDGES = _words("might may could possibly perhaps maybe appears appear looks look seems seem")
ADVERBS = _words(
    "probably likely most clearly definitely indeed here therefore then obviously certainly surely simply just thus "
    "actually really also again hence still now already easily safely all both evidently overall only very more "
    "possibly perhaps maybe instead immediately being finally ultimately quite"
)
LINKS = (
    AUXILIARIES
    | ADVERBS
    | _words("the a an option options choice choices letter label my our that it this i you we : = > →")
)
"""Words that may stand between an announcement and its letter: "the answer is most likely option B"."""

THOUGHTS = _words(
    "think believe guess say suppose feel conclude find sure certain confident convinced assume determine"
)
ANSWERS = _words("answer answers ans solution conclusion response")
OPTIONS = _words("option choice letter candidate one statement")
CHOOSING = _words(
    "choose chose chosen pick picked picking select selected choosing selecting prefer leaves leaving leave means "
    "indicates suggests"
)
GOOD = _words("correct right best true final accurate suitable appropriate only")
GOOD_NOUNS = _words("answer answers option choice one letter match fit solution statement candidate")
FITS = _words("fits fit matches match completes remains works")
RELATIVES = _words("to for of here in among from that which with on at")
"""After "the answer" or "the option": what may lie before "is B", as in "the option that completes the figure is B"."""

NOT_WORDS = _words("not never neither nor without hardly no none")
BAD = _words(
    "wrong incorrect false worst least unlikely bad invalid implausible mistaken impossible poor out excluded "
    "eliminated rejected discarded dismissed fails inaccurate unsuitable inappropriate misleading distractor untrue "
    "improbable mistake error trap ✗ ✘ × ❌"
)
REJECTING = _words(
    "exclude excludes excluding eliminate eliminates eliminating reject rejecting discard discarding dismiss "
    "dismissing avoid doubt refuse disagree except ignore skip versus excluded eliminated rejected discarded "
    "dismissed over unlike against"
)
ASIDE = _words("except versus over unlike against without")
"""Prepositions of rejection: they reach to the next comma only, "Instead of A, B"."""

DOUBTS = _words("initially originally previously tempting tempted whether suppose supposing someone some people")
CORRECTIONS = _words("wait actually sorry correction oops no hmm rather instead hold")
RETRACTIONS = _words("no")
BREAKS = _words(
    "but however so therefore thus hence because since although though while whereas if unless when meaning and or "
    "then yet making"
)
CONDITIONS = _words("if unless were")
REASONS = _words("as for given because since")
SPATIAL = _words("of next above below behind beside in on at to there before after near")
"""After "right" they speak of a place: "B is right of the car"."""

COORDINATORS = _words("and or nor / , & + also maybe either both")
CLOSERS = _words("and or nor")
AFTER_A = _words(
    "is was because since and or nor but not fits matches seems looks must should would can could does shows completes "
    "works makes may might has as instead except over appears were are will cannot remains excluded versus so fails did"
)
"""Before these an "A" is no article."""
