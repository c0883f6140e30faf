"""Look at traces: one self-contained HTML page of many episodes."""

from __future__ import annotations

from pyvision_env.report.page import write_page

__all__ = ["write_page"]
