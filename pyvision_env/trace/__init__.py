"""Traces: one episode is one JSONL file beside a content-addressed store of its pictures; replay needs no model.

``RecordTrace`` writes them, ``read_trace`` and ``iter_traces`` read them, ``replay`` runs their actions again.
The format is described in ``pyvision_env.trace.format``.
"""

from __future__ import annotations

from pyvision_env.trace.format import (
    VERSION,
    EndRecord,
    ImageRef,
    ObservationRecord,
    TraceHeader,
    TurnRecord,
    VideoRef,
)
from pyvision_env.trace.read import Trace, iter_traces, read_trace
from pyvision_env.trace.record import RecordTrace
from pyvision_env.trace.replay import Difference, ReplayReport, replay
from pyvision_env.trace.store import TraceStore, TraceWriter

__all__ = [
    "VERSION",
    "Difference",
    "EndRecord",
    "ImageRef",
    "ObservationRecord",
    "RecordTrace",
    "ReplayReport",
    "Trace",
    "TraceHeader",
    "TraceStore",
    "TraceWriter",
    "TurnRecord",
    "VideoRef",
    "iter_traces",
    "read_trace",
    "replay",
]
