r"""The reward as named terms: accuracy, the accumulative tool reward and format.

``R = R_acc + tool_weight * n_counted * 1[correct] + format_weight * 1[well formed]``; with the defaults this is
``R = R_acc + 0.1 * n_tc * 1[R_acc = 1]`` of arXiv 2602.20739, counting successful calls.

An episode keeps one number, the calls counted so far, and passes it along: ``step_terms`` at every tool turn,
``final_terms`` once, at the answer. An episode that never answers earns nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pyvision_env.config import RewardConfig
from pyvision_env.types import Grade

NO_TERMS: Mapping[str, float] = MappingProxyType({"accuracy": 0.0, "tool": 0.0, "format": 0.0})
"""Terms of a step that earns nothing; every step has exactly these names, in this order."""


def step_terms(
    config: RewardConfig, *, called: bool, ok: bool, counted_before: int = 0
) -> tuple[dict[str, float], int]:
    """Terms of a turn that does not end the episode with an answer.

    Args:
        config: Weights, gate and what counts.
        called: The turn ran a tool; a malformed turn did not.
        ok: The tool ran without error, all of its calls where the turn held several.
        counted_before: Calls counted in earlier turns.

    Returns:
        The terms, and the calls counted so far including this turn's. A turn counts as one call at most, however many
        blocks it holds, so that splitting code into blocks earns nothing.
    """
    below_cap = config.max_counted is None or counted_before < config.max_counted
    counts = called and (ok or config.count == "all") and below_cap
    pays = counts and config.gate == "immediate"
    return {**NO_TERMS, "tool": config.tool_weight if pays else 0.0}, counted_before + counts


def final_terms(config: RewardConfig, grade: Grade, *, counted: int, well_formed: bool) -> dict[str, float]:
    r"""Terms of the turn that answers.

    Args:
        config: Weights and gate.
        grade: The verdict on the answer.
        counted: Calls counted in the whole episode.
        well_formed: The answer was given in the expected form, ``\boxed{}``.
    """
    pays = grade.correct and config.gate == "correct"
    return {
        "accuracy": float(grade.score),
        "tool": config.tool_weight * counted if pays else 0.0,
        "format": config.format_weight if well_formed else 0.0,
    }


def total(terms: Mapping[str, float]) -> float:
    """The step's reward: the terms added in the order of ``NO_TERMS``, so that equal terms give the very same float."""
    return terms["accuracy"] + terms["tool"] + terms["format"]


def episode_return(config: RewardConfig, grade: Grade | None, *, counted: int, well_formed: bool = False) -> float:
    """The undiscounted return of a whole episode in closed form, for checks and offline recomputation.

    Args:
        config: Weights and gate.
        grade: The verdict on the answer; None for an episode that never answered.
        counted: Calls counted in the whole episode.
        well_formed: The answer was given in the expected form.
    """
    gate_open = config.gate == "immediate" or (grade is not None and grade.correct)
    tool = config.tool_weight * counted if gate_open else 0.0
    if grade is None:
        return tool
    return grade.score + tool + (config.format_weight if well_formed else 0.0)
