"""What an agent is: it sees what a model would see of an episode and writes the next turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pyvision_env.conversation import build_messages
from pyvision_env.types import Observation, Turn


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """An episode so far, as a model may see it; the task's reference answer is not in it.

    Attributes:
        system_prompt: What a model is told before the episode.
        observations: The question, then what each turn brought back.
        turns: The texts written so far, one less than ``observations``.
        seed: Of the episode, for agents that draw; None when there is none.
    """

    system_prompt: str
    observations: tuple[Observation, ...]
    turns: tuple[str, ...] = ()
    seed: int | None = None
    _steps: tuple[Turn, ...] = ()

    @classmethod
    def of(cls, system_prompt: str, first: Observation, steps: Sequence[Turn] = (), seed: int | None = None) -> Context:
        """The context after some steps of an environment."""
        observations = (first, *(step.observation for step in steps))
        return cls(system_prompt, observations, tuple(step.action_text for step in steps), seed, tuple(steps))

    @property
    def question(self) -> str:
        """The question with its options and a note of the media."""
        return self.observations[0].text

    @property
    def observation(self) -> Observation:
        """The latest observation."""
        return self.observations[-1]

    @property
    def turns_left(self) -> int:
        """Tool turns that are left; with 0 the next turn must be the answer."""
        return self.observation.turns_left

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation in the shape of OpenAI chat messages, pictures as PNG data URLs."""
        return build_messages(self.observations[0], self._steps, self.system_prompt)


class Agent(Protocol):
    r"""Whatever writes the turns of an episode.

    The whole contract is one method and a name::

        class FirstOption:
            name = "first-option"

            def act(self, context):
                return r"<answer>\boxed{A}</answer>"

    ``act`` gets the whole episode so far each time, so an agent need not remember anything; one that does can tell a
    new episode by ``context.turns`` being empty. A rollout with several episodes at once makes an agent for each
    worker, or is told that one may be shared.

    An agent may also have ``settings``, a mapping of JSON values that its turns depend on, such as a temperature: they
    are written into its traces, and a run that is resumed takes up only episodes of equal settings.

    Attributes:
        name: Who acts, as written into traces and reports.
    """

    name: str

    def act(self, context: Context) -> str:
        """Write the next turn: raw text, as a model would.

        Raises:
            InfrastructureError: No turn can be had through no fault of the model; the episode is not scored.
            UserError: The agent is set up wrongly; nothing is run any further.
        """
        ...


def settings_of(agent: Agent) -> Mapping[str, Any]:
    """What an agent's turns depend on beside its name, where it says so."""
    settings = getattr(agent, "settings", None)
    return settings if isinstance(settings, Mapping) else {}
