"""Episodes on the terminal: the question, each turn with its code, what came back, and the reward."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.rule import Rule
from rich.syntax import Syntax
from rich.text import Text

from pyvision_env.env import PyVisionEnv
from pyvision_env.report.text import spans, visible
from pyvision_env.rollout import EpisodeResult
from pyvision_env.types import Observation, Turn

_SHOWN_LINES = 20


def print_question(console: Console, env: PyVisionEnv) -> None:
    """The task, as the agent sees it."""
    console.print(Rule(f"[bold]{escape(env.task.id)}", align="left"))
    console.print(Text(_text(env.first_observation), style="bold"))
    _print_images(console, env.first_observation)


def print_turn(console: Console, number: int, turn: Turn) -> None:
    """What the agent wrote and what came of it."""
    console.print(f"\n[bold blue]Turn {number}[/]")
    for span in spans(turn.action_text):
        if span.kind == "code":
            for line in Syntax("", "python", background_color="default").highlight(visible(span.text)).split("\n"):
                console.print(Text("    ") + line, soft_wrap=True)
        elif span.kind == "prose":
            console.print(Text(visible(span.text)))
    console.print(Text(textwrap.indent(_shorten(_text(turn.observation)), "  "), style="green"))
    _print_images(console, turn.observation)
    if turn.reward or turn.terminated or turn.truncated:
        console.print(f"  reward {turn.reward:g}{_terms(turn.terms)}", style="magenta", highlight=False)


def print_result(console: Console, result: EpisodeResult, expected: str) -> None:
    """How the episode ended."""
    if not result.counts:
        console.print(f"[bold red]Not scored:[/] {escape(result.error or result.end_reason)}", highlight=False)
        return
    verdict = "[bold green]correct[/]" if result.correct else f"[bold red]wrong[/], expected {escape(expected)}"
    console.print(
        f"\nAnswer {escape(result.answer or 'none')}: {verdict}. Return {result.episode_return:g}"
        f"{_terms(result.reward_terms)}, {result.tool_calls} tool call(s), {result.visual_tokens:,} visual tokens, "
        f"{result.duration_s:.1f} s.\n",
        highlight=False,
    )


def _terms(terms: Mapping[str, float]) -> str:
    parts = [f"{name} {value:g}" for name, value in terms.items() if value]
    return f" ({', '.join(parts)})" if parts else ""


def _text(observation: Observation) -> str:
    return visible(observation.text)


def _shorten(text: str) -> str:
    lines = text.splitlines()
    if len(lines) <= _SHOWN_LINES:
        return text
    return "\n".join([*lines[:_SHOWN_LINES], f"... {len(lines) - _SHOWN_LINES} more lines"])


def _print_images(console: Console, observation: Observation) -> None:
    shown = [
        f"{label} {image.shape[1]}x{image.shape[0]}"
        for label, image in zip(observation.labels, observation.images, strict=True)
    ]
    if shown:
        console.print(f"  images: {', '.join(shown)}", style="cyan", highlight=False)
