"""Graders: whether the model's final answer is the task's reference answer.

Only the text of the final answer comes here, never a transcript: what a tool printed cannot score.
"""

from __future__ import annotations

from pyvision_env.grading.choice import extract_choice
from pyvision_env.grading.dispatch import GRADERS, Judge, grade, grader_of
from pyvision_env.grading.numbers import extract_number
from pyvision_env.grading.numeric import mean_relative_accuracy
from pyvision_env.grading.symbolic import math_equal
from pyvision_env.grading.text import normalize_text

__all__ = [
    "GRADERS",
    "Judge",
    "extract_choice",
    "extract_number",
    "grade",
    "grader_of",
    "math_equal",
    "mean_relative_accuracy",
    "normalize_text",
]
