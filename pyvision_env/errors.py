"""Two families of errors, never mixed with the model's own mistakes (those are observations, not exceptions).

``UserError``: what the caller gave is wrong; the message says what was expected, what came and what to do.
``InfrastructureError``: the machine, the engine or a service failed; it may be retried and never becomes a reward.
"""

from __future__ import annotations


class PyVisionError(Exception):
    """Base of every error this package raises on purpose."""


class UserError(PyVisionError, ValueError):
    """The caller's input is wrong."""


class ConfigError(UserError):
    """A configuration value or keyword argument is wrong."""


class TaskError(UserError):
    """A task record, a task file or a task id is wrong."""


class MediaError(UserError):
    """An image or video of a task cannot be read."""


class TraceError(UserError):
    """A trace is missing, damaged or of another version."""


class InfrastructureError(PyVisionError, RuntimeError):
    """Something outside the model and the caller failed; exclude the episode from training, never score it."""


class SandboxError(InfrastructureError):
    """Base of sandbox failures."""


class SandboxUnavailableError(SandboxError):
    """The machine cannot offer the requested kind of sandbox (no engine, no image, no confinement)."""


class SandboxImageError(SandboxError):
    """The sandbox image is missing, cannot be built or holds another version of the worker."""


class SandboxStartError(SandboxError):
    """A container or worker did not become ready in time."""


class SandboxBusyError(SandboxError):
    """No episode slot became free before the deadline."""


class SandboxLostError(SandboxError):
    """The container, worker or engine died under a running episode."""


class SandboxClosedError(SandboxError):
    """The sandbox or episode was already closed."""


class JudgeUnavailableError(InfrastructureError):
    """The judge model could not be reached or gave no usable verdict."""


class ModelUnavailableError(InfrastructureError):
    """The model that acts could not be reached, or its server gave no usable reply."""
