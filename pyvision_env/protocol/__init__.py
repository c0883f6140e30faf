"""What a model says, turned into an ``Action`` and back: text tags, OpenAI tool calls and structured values.

All three ways share the readers in ``content``, hence the same rules and the same reasons when something is malformed.
"""

from __future__ import annotations

from pyvision_env.protocol.content import boxed
from pyvision_env.protocol.structured import from_structured, to_structured
from pyvision_env.protocol.text import STOP_STRINGS, format_action, parse
from pyvision_env.protocol.tool_calls import TOOLS, parse_tool_calls

__all__ = [
    "STOP_STRINGS",
    "TOOLS",
    "boxed",
    "format_action",
    "from_structured",
    "parse",
    "parse_tool_calls",
    "to_structured",
]
