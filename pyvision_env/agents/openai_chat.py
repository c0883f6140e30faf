"""A model behind an OpenAI-compatible chat server: text tags in plain messages, pictures as data URLs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from pyvision_env.agents.protocol import Context
from pyvision_env.errors import ConfigError, ModelUnavailableError

if TYPE_CHECKING:
    import openai

_REFUSED = (401, 403, 404)
_PASSING = (408, 409, 429)
_SHOWN_CHARS = 500


class _NoReplyError(Exception):
    """The server answered, but without a choice in it."""


class OpenAIAgent:
    """Asks a chat server for each turn; may be shared by many threads.

    Connection failures, time-outs, 408, 409, 429, 5xx and replies without a choice are tried again with growing waits.
    What the model itself says is passed on as it is, an empty message included: that is the model's turn.

    Args:
        model: Name of the model on the server; also the agent's name.
        base_url: The server, such as ``http://127.0.0.1:8000/v1``; None for ``OPENAI_BASE_URL`` or OpenAI's own.
        api_key: None for ``OPENAI_API_KEY``; servers given by ``base_url`` may need none.
        temperature: None for the server's default.
        max_tokens: Tokens of one turn; None for the server's default.
        seed: Sampling seed, to which the episode's seed is added; None to send none.
        stop: Where generation stops, such as ``pyvision_env.protocol.STOP_STRINGS``.
        timeout_s: Seconds for one request.
        attempts: Requests at most for one turn.
        first_wait_s: Seconds before the second request; later waits double.
        max_wait_s: Longest of these waits.
        extra: Further fields of the request, such as ``{"top_p": 0.9}``.

    Attributes:
        name: The model.
        settings: What its turns depend on beside the model; without the key.

    Raises:
        ConfigError: No key is given where one is needed, ``base_url`` is no address, or a number is out of range.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
        timeout_s: float = 600.0,
        attempts: int = 6,
        first_wait_s: float = 0.5,
        max_wait_s: float = 30.0,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        import openai

        if attempts < 1 or timeout_s <= 0 or first_wait_s < 0 or max_wait_s < 0:
            raise ConfigError(
                "attempts must be at least 1, timeout_s above 0 and waits not negative, but "
                f"attempts={attempts}, timeout_s={timeout_s}, first_wait_s={first_wait_s}, max_wait_s={max_wait_s} came"
            )
        base_url = base_url or os.environ.get("OPENAI_BASE_URL")
        api_key = api_key or os.environ.get("OPENAI_API_KEY") or ("none" if base_url else None)
        if api_key is None:
            raise ConfigError(
                "No server and no key were given: pass base_url of an OpenAI-compatible server (--base-url), or set "
                "OPENAI_API_KEY to use OpenAI's own"
            )
        _check_address(base_url)
        self.name = model
        self._client: openai.OpenAI = openai.OpenAI(
            base_url=base_url, api_key=api_key, timeout=timeout_s, max_retries=0
        )
        self._attempts = attempts
        self._waits = {"wait_initial": first_wait_s, "wait_max": max_wait_s, "wait_jitter": first_wait_s}
        self._seed = seed
        self._fields: dict[str, Any] = {"model": model}
        if temperature is not None:
            self._fields["temperature"] = temperature
        if max_tokens is not None:
            self._fields["max_tokens"] = max_tokens
        if stop:
            self._fields["stop"] = list(stop)
        self._extra = dict(extra or {})
        self.settings: dict[str, Any] = {
            "base_url": None if base_url is None else _public(base_url),
            "temperature": temperature,
            "max_tokens": max_tokens,
            "seed": seed,
            "stop": list(stop),
            "extra": dict(self._extra),
        }

    def act(self, context: Context) -> str:
        """The model's next turn.

        Raises:
            ModelUnavailableError: The server cannot be reached, keeps failing, or refuses this conversation.
            ConfigError: The server does not know the model or the key.
        """
        import openai
        import stamina

        fields = {**self._fields, "messages": context.messages}
        if self._seed is not None:
            fields["seed"] = self._seed + (context.seed or 0)
        try:
            for attempt in stamina.retry_context(on=_may_pass, attempts=self._attempts, timeout=None, **self._waits):
                with attempt:
                    return self._ask(fields)
        except openai.APIStatusError as error:
            raise self._refusal(error) from error
        except (openai.OpenAIError, _NoReplyError) as error:
            reason = str(error) or type(error).__name__
            raise ModelUnavailableError(
                f"No turn of {self.name} could be had from {self._client.base_url} in {self._attempts} attempt(s): "
                f"{reason[:_SHOWN_CHARS]}"
            ) from error
        raise AssertionError("retry_context either returns a turn or raises")

    def close(self) -> None:
        """Close the connections; idempotent."""
        self._client.close()

    def _ask(self, fields: Mapping[str, Any]) -> str:
        # A server, or a proxy before it, may send no JSON or JSON of another shape; the client does not check that.
        try:
            reply: Any = self._client.chat.completions.create(**fields, extra_body=self._extra or None)
        except ValueError as error:
            raise _NoReplyError(f"the reply is no JSON: {error}") from error
        choices = getattr(reply, "choices", None)
        message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
        if message is None:
            raise _NoReplyError(f"the reply holds no choice: {str(reply)[:_SHOWN_CHARS]}")
        return str(message.content or "")

    def _refusal(self, error: openai.APIStatusError) -> ConfigError | ModelUnavailableError:
        said = f"{self._client.base_url} answered {error.status_code}: {error.message[:_SHOWN_CHARS]}"
        if error.status_code in _REFUSED:
            return ConfigError(f"The server refuses model {self.name!r}: {said}. Check the model, base_url and the key")
        return ModelUnavailableError(f"No turn of {self.name} could be had: {said}")


def _check_address(base_url: str | None) -> None:
    """Told before anything is asked: no further attempt makes an address of what is none."""
    if base_url is None:
        return
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # brackets that do not close, or a port that is no number up to 65535
        usable = False
    if not usable:
        raise ConfigError(
            "base_url (--base-url, OPENAI_BASE_URL) must be an address such as http://127.0.0.1:8000/v1, but "
            f"{base_url!r} came"
        )


def _public(address: str) -> str:
    """An address without what may be secret in it: a password, or a key in the query."""
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _may_pass(error: Exception) -> bool:
    """Whether another attempt may succeed."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return error.status_code in _PASSING or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError | openai.APIResponseValidationError | _NoReplyError)
