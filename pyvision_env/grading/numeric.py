"""Comparing numbers: by tolerance and by mean relative accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable

from pyvision_env.errors import UserError
from pyvision_env.grading.numbers import Number

DEFAULT_TOLERANCE = 1e-3
_SLACK = 1e-9
"""Relative allowance for binary rounding, so that a bound written in decimals is inclusive."""


def best_of_readings(answer: Number, reference: Number, compare: Callable[[float, float], float]) -> float:
    """``compare(answer, reference)``, at its best over what a percent sign may mean.

    Where only one side has the sign, "50%" is compared both as 50 and as 0.5: references leave it out as often as
    answers do. Different units never compare; a unit on one side only is no difference.
    """
    percents = {answer.unit, reference.unit} & {"%"}
    if answer.unit == reference.unit or not percents:
        same_kind = answer.unit is None or reference.unit is None or answer.unit == reference.unit
        return compare(answer.value, reference.value) if same_kind else 0.0
    if answer.unit is not None and reference.unit is not None:
        return 0.0
    share = answer.value / 100 if answer.unit else answer.value
    whole = reference.value / 100 if reference.unit else reference.value
    return max(compare(answer.value, reference.value), compare(share, whole))


def numbers_close(answer: float, reference: float, tolerance: float | None = None, relative: float = 0.0) -> bool:
    """Whether ``|answer - reference| <= max(tolerance, relative * |reference|)``, the bound itself included.

    Args:
        answer: The number to judge.
        reference: The true number.
        tolerance: Absolute; by default 0.001, but never over 1 % of the reference, so that 0 is no answer to 0.0005.
        relative: As a share of the reference.
    """
    if tolerance is None:
        tolerance = min(DEFAULT_TOLERANCE, 0.01 * abs(reference))
    bound = max(tolerance, relative * abs(reference))
    return abs(answer - reference) <= bound + _SLACK * max(abs(reference), bound)


def mean_relative_accuracy(prediction: float, target: float) -> float:
    r"""Mean relative accuracy, ``1/10 * sum over t in {.50, .55, ..., .95} of 1[|y^ - y| / |y| <= 1 - t]``.

    Source: the metric of VSI-Bench. Bounds are inclusive with an allowance for binary rounding.

    Args:
        prediction: ``y^``; one that is not finite scores 0.
        target: ``y``. For 0, where the relative error is undefined, only 0 itself scores, and scores 1.

    Returns:
        One of 0, 0.1, ..., 1.

    Raises:
        UserError: If the target is not finite.
    """
    if not math.isfinite(target):
        raise UserError(f"mean_relative_accuracy expects a finite target, but got {target}")
    if not math.isfinite(prediction):
        return 0.0
    if target == 0:
        return 1.0 if prediction == 0 else 0.0
    error = abs(prediction - target) / abs(target)
    # 1 - t in percent: 50, 45, ..., 5.
    return sum(error <= percent / 100 + _SLACK for percent in range(50, 0, -5)) / 10
