"""What a result must tell the model: one clear line, and nothing of the worker's insides."""

from __future__ import annotations

from pyvision_env.sandbox import Episode
from pyvision_env.types import ToolResult

LOST = ". A fresh runtime was started: variables are gone, image_clue_k and video_clue_j are bound anew."
INSIDES = ("_pyvision_worker", "runtime.py", "capture.py", "/opt/pyvision", "sandbox/worker")


def assert_told(result: ToolResult, expected: str | tuple[str, ...] | None, code: str) -> None:
    """One short line says what happened: ``expected`` begins it, None where nothing went wrong."""
    if expected is None:
        assert result.error is None, (code, result)
    else:
        assert result.error is not None, (code, result)
        assert result.error.startswith(expected), (code, result.error)
        assert "\n" not in result.error, code
        assert len(result.error) <= 500, code
        if result.state_lost:
            assert result.text == result.error + LOST, code
        else:
            assert result.error[:200] in result.text, (code, result.text)
    assert not any(word in result.text for word in INSIDES), (code, result.text)
    assert len(result.text) <= 8192 + 200, code


def assert_answers(neighbour: Episode) -> None:
    """It keeps its state and answers at once, whatever has just happened beside it."""
    result = neighbour.run("print(secret, 6 * 7)", timeout=15)
    assert (result.text, result.state_lost) == ("untouched 42\n", False), result
