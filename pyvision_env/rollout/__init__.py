"""Rollouts: agents act in many episodes at once; every finished episode counts, or says why it does not."""

from __future__ import annotations

from pyvision_env.rollout.episode import run_episode
from pyvision_env.rollout.result import EpisodeResult, Summary, result_of_trace, summarize
from pyvision_env.rollout.run import run_episodes
from pyvision_env.trace.format import TASK_ERROR

__all__ = ["TASK_ERROR", "EpisodeResult", "Summary", "result_of_trace", "run_episode", "run_episodes", "summarize"]
