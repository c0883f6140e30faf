"""The reference agent: solves the demo's and the synthetic tasks by writing real code, without a model."""

from __future__ import annotations

from pyvision_env.agents.protocol import Context
from pyvision_env.agents.reference_images import IMAGE_STRATEGIES
from pyvision_env.agents.reference_synthetic import SYNTHETIC_STRATEGIES
from pyvision_env.agents.reference_videos import VIDEO_STRATEGIES
from pyvision_env.agents.strategy import Strategy, choose, read_notes, read_options
from pyvision_env.protocol import format_action
from pyvision_env.types import Answer

STRATEGIES: tuple[Strategy, ...] = (*IMAGE_STRATEGIES, *VIDEO_STRATEGIES, *SYNTHETIC_STRATEGIES)
"""All questions the reference agent knows how to go about."""

UNKNOWN = "unknown"
"""What it answers when it does not know how, or when its code found nothing."""


class ReferenceAgent:
    """Chooses a strategy by the question's wording and answers what its code found.

    It knows how to look, not what is there: the answer comes from what the code printed in the sandbox. It shows the
    way of working to people, and what the environment does to tests, without a model.
    """

    name = "reference"

    def act(self, context: Context) -> str:
        """The strategy's next turn, or the answer once it is through or no tool turn is left."""
        question = context.question
        found = ((plan, plan.question.search(question)) for plan in STRATEGIES)
        plan, match = next(((plan, match) for plan, match in found if match is not None), (None, None))
        if plan is None or match is None:
            return _answer("I do not know how to go about this question.", UNKNOWN)
        notes = read_notes(match, [observation.text for observation in context.observations[1:]])
        index = len(context.turns)
        if index < len(plan.turns) and context.turns_left > 0:
            turn = plan.write(index, notes)
            if turn is not None:
                return turn
        if "finding" not in notes:
            return _answer("My code did not find it.", UNKNOWN)
        finding = notes["finding"]
        return _answer(f"My code found: {finding}.", choose(finding, read_options(question)))


def _answer(thought: str, text: str) -> str:
    return f"{thought}\n{format_action(Answer(text))}"
