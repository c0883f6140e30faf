r"""The text grammar: ``<code>``, ``<frames>`` and ``<answer>`` tags in raw model text.

- Tags are case-insensitive and may hold white space. ``<think>...</think>`` is ignored; a ``</think>`` whose opening
  stood in the prompt ends the thinking that began with the text; after an unclosed ``<think>`` nothing is read.
- Nothing inside a block is a tag. A fenced block ends at a closing fence at least as long as the opening one that is
  followed by ``</code>`` (or by the end of the text); a block without a fence ends at the first ``</code>``.
- Inside ``<answer>`` and ``<frames>`` a repeated opening tag starts the content anew, as does a fenced ``<code>``
  inside a block without a fence: the first one was only mentioned.
- A closing tag may be missing at the very end of the text, because generation that stops at a stop string commonly
  leaves it out. A fence must be closed all the same: without it the code was cut short.
- What one turn may combine is decided in ``content.one_turn``: an answer wins over tool calls.
"""

from __future__ import annotations

import json
import re
import textwrap

from pyvision_env.errors import UserError
from pyvision_env.protocol.content import (
    FRAMES_EXAMPLE,
    fenced_code,
    frames_arguments,
    one_turn,
    opening_fence,
    read_answer,
    read_code,
    read_frames_json,
)
from pyvision_env.types import Action, Answer, FetchFrames, Invalid, RunCode, ToolAction, ToolCalls

STOP_STRINGS = ("</code>", "</frames>", "</answer>")
"""Where generation may be stopped: after the first complete action. Optional; a turn then holds one call at most, and
code that holds ``</code>`` in a string is cut short."""

# Possessive quantifiers (``*+``) keep every pattern linear on text made to defeat it.
_TAG = re.compile(r"<\s*+(/?)\s*+(code|frames|answer|think)\s*+>", re.IGNORECASE | re.ASCII)
_FENCE_END = re.compile(r"(?<!`)(`{3,}+)\s*+(?:<\s*+/\s*+code\s*+>|\Z)", re.IGNORECASE | re.ASCII)
_LAST_FENCE = re.compile(r"(?<!`)`{3,}+\s*+\Z")
_BACKTICKS = re.compile(r"`+")

_EXPECTED = (
    "Expected one action: <code>```python ... ```</code>, "
    rf"<frames>{FRAMES_EXAMPLE}</frames> or <answer>\boxed{{...}}</answer>"
)


def parse(text: str, max_blocks: int = 8) -> Action:
    """Read the action in a model's turn, in time linear in its length.

    Args:
        text: Raw model text.
        max_blocks: Tool calls one turn may hold; more make the turn invalid.

    Returns:
        The action; ``Invalid`` with a reason for the model when there is none.
    """
    return _Reader(text).action(max_blocks)


class _Reader:
    """One pass over the text: each method moves ``position`` forward, so no character is searched twice."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.parts: list[str | FetchFrames | Answer | Invalid] = []
        self.fences_end = True

    def action(self, max_blocks: int) -> Action:
        broken: Invalid | None = None
        while broken is None and (tag := _TAG.search(self.text, self.position)):
            self.position = tag.end()
            name = tag[2].lower()
            if name == "think" and tag[1]:
                self.parts.clear()
            elif name == "think":
                broken = self._skip_thinking()
            elif not tag[1]:
                broken = self._code() if name == "code" else self._tagged(name)
        # A turn that breaks off in a later block is invalid as a whole, unless it already answered.
        return one_turn([*self.parts, broken] if broken else self.parts, max_blocks) or Invalid(_nothing(self.text))

    def _skip_thinking(self) -> Invalid | None:
        end = self._find_end("think")
        self.position = end.end() if end else len(self.text)
        if end is None and not self.parts:
            return Invalid(f"{_EXPECTED} after </think>, but <think> was never closed.")
        return None

    def _code(self) -> Invalid | None:
        fence = opening_fence(self.text, self.position)
        if fence is None:
            return self._tagged("code")
        # After one search in vain there is no closing fence further on either; searching again would be quadratic.
        if self.fences_end:
            for end in _FENCE_END.finditer(self.text, fence.end()):
                if len(end[1]) >= len(fence[1]):
                    self.parts.append(fenced_code(self.text[fence.end() : end.start()]))
                    self.position = end.end()
                    return None
            self.fences_end = False
        closing = self._find_end("code")
        if closing is None:
            return Invalid("Expected the code fence to be closed by ```</code>, but the text ends inside the code.")
        self.parts.append(fenced_code(_LAST_FENCE.sub("", self.text[fence.end() : closing.start()])))
        self.position = closing.end()
        return None

    def _tagged(self, name: str) -> Invalid | None:
        start = self.position
        for tag in _TAG.finditer(self.text, start):
            if tag[1] and tag[2].lower() == "think":
                # An orphan </think>: what looked like an opening tag was only mentioned in thinking.
                self.parts.clear()
                self.position = tag.end()
                return None
            if tag[1] and tag[2].lower() == name:
                self._take(name, self.text[start : tag.start()])
                self.position = tag.end()
                return None
            if not tag[1] and tag[2].lower() == name:
                if name != "code":
                    start = tag.end()
                elif opening_fence(self.text, tag.end()):
                    # "I will use <code> ... <code>```python": the tag was mentioned, the fenced one is meant.
                    self.position = tag.start()
                    return None
        if other := _TAG.search(self.text, start):
            return Invalid(f"Expected <{name}> to be closed by </{name}>, but it is still open at {other[0]}.")
        self._take(name, self.text[start:])
        self.position = len(self.text)
        return None

    def _find_end(self, name: str) -> re.Match[str] | None:
        ends = (tag for tag in _TAG.finditer(self.text, self.position) if tag[1] and tag[2].lower() == name)
        return next(ends, None)

    def _take(self, name: str, content: str) -> None:
        if name == "code":
            self.parts.append(read_code(textwrap.dedent(content).strip()))
        elif name == "frames":
            self.parts.append(read_frames_json(content))
        else:
            self.parts.append(read_answer(content))


def _nothing(text: str) -> str:
    if not text.strip():
        found = "the message is empty"
    elif any(tag[1] and tag[2].lower() == "think" for tag in _TAG.finditer(text)):
        found = "no action came after the last </think>"
    elif "```" in text:
        found = "a code fence came outside <code>...</code>"
    elif r"\boxed" in text:
        found = r"\boxed came outside <answer>...</answer>"
    elif _TAG.search(text):
        found = "no opening tag of an action came"
    else:
        found = "text without any such tag came"
    return f"{_EXPECTED}, but {found}."


def format_action(action: Action) -> str:
    r"""Say an action in the text grammar: ``parse(format_action(action)) == action``.

    An ``Answer`` without ``raw`` is written as ``\boxed{text}`` and comes back with ``raw`` filled in.

    Raises:
        UserError: If the grammar cannot carry the action, such as an empty one, a frame request that chooses in two
            ways, an answer that holds ``</answer>``, or ``Invalid``.
    """
    if isinstance(action, Answer):
        content = action.raw or rf"\boxed{{{action.text}}}"
        text = f"<answer>{content}</answer>"
    elif isinstance(action, Invalid):
        raise UserError("format_action expects an action to say, but got Invalid; send its reason to the model instead")
    else:
        text = _format_calls(action)
    back = parse(text, max_blocks=text.count("<") + 1)
    same = back == action or (isinstance(action, Answer) and not action.raw and _same_answer(back, action))
    if not same:
        raise UserError(f"The text grammar cannot carry {action!r}; it would be read back as {back!r}")
    return text


def _same_answer(back: Action, action: Answer) -> bool:
    return isinstance(back, Answer) and back.text == action.text


def _format_calls(action: ToolAction) -> str:
    if isinstance(action, ToolCalls):
        return "\n".join(_format_calls(call) for call in action.calls)
    if isinstance(action, RunCode):
        return "\n".join(_format_block(block) for block in action.blocks)
    return f"<frames>{json.dumps(frames_arguments(action))}</frames>"


def _format_block(code: str) -> str:
    longest = max((len(run[0]) for run in _BACKTICKS.finditer(code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"<code>{fence}python\n{code}\n{fence}</code>"
