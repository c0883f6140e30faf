"""An agent that says what it was told to say."""

from __future__ import annotations

from collections.abc import Sequence

from pyvision_env.agents.protocol import Context
from pyvision_env.errors import UserError


class ScriptedAgent:
    """Writes the given turns in their order, in every episode; for tests, demonstrations and measurements.

    Args:
        turns: Raw texts.
        name: As written into traces.
    """

    def __init__(self, turns: Sequence[str], name: str = "scripted") -> None:
        self.name = name
        self._turns = tuple(turns)

    def act(self, context: Context) -> str:
        """The next of the given turns.

        Raises:
            UserError: There is none left, and the episode goes on.
        """
        index = len(context.turns)
        if index >= len(self._turns):
            raise UserError(
                f"The script has {len(self._turns)} turn(s), but the episode goes on after them; "
                "end the script with an <answer>"
            )
        return self._turns[index]
