"""Imports matplotlib where nothing but an episode's slot is writable, with the font list that was made beforehand."""

from __future__ import annotations

import os
from pathlib import Path


def import_matplotlib(writable: Path) -> None:
    """Import matplotlib; it insists on a writable directory and would otherwise search all fonts anew.

    Args:
        writable: An empty directory; the caller empties it again. ``MPLCONFIGDIR`` names the one with the font list.
    """
    fonts = os.environ.get("MPLCONFIGDIR")
    os.environ["MPLCONFIGDIR"] = str(writable)
    import matplotlib as mpl

    if fonts and any(Path(fonts).glob("fontlist-*.json")):
        mpl.get_cachedir = lambda: fonts
        from matplotlib import font_manager  # noqa: F401 - reads the list now

    mpl.get_cachedir = mpl.get_configdir = lambda: os.environ["MPLCONFIGDIR"]
