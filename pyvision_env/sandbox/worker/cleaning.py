"""Emptying what an episode has filled: trees of any depth, permissions and names; and taking control groups away."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from pathlib import Path


def empty_directory(directory: Path) -> None:
    """Remove everything below ``directory``, however deep, whatever its permissions, without following links.

    Nested directories are first moved to the top, so that depth costs neither recursion nor long paths.
    """
    counter = 0
    pending = True
    while pending:
        pending = False
        for entry in list(os.scandir(directory)):
            mode = entry.stat(follow_symlinks=False).st_mode
            if not stat.S_ISDIR(mode):
                os.unlink(entry.path)
                continue
            if mode & 0o700 != 0o700:
                os.chmod(entry.path, 0o700)
            for inner in list(os.scandir(entry.path)):
                if inner.is_dir(follow_symlinks=False):
                    if inner.stat(follow_symlinks=False).st_mode & 0o200 == 0:
                        os.chmod(inner.path, 0o700)
                    counter += 1
                    os.rename(inner.path, directory / f".moved-{counter}-{os.getpid()}-{time.monotonic_ns()}")
                    pending = True
                else:
                    os.unlink(inner.path)
            os.rmdir(entry.path)


def remove_groups(path: Path, seconds: float = 2.0) -> bool:
    """Take a control group and those directly below it away, waiting for the last of their processes to end.

    Returns:
        Whether they are gone.
    """
    deadline = time.monotonic() + seconds
    while path.is_dir():
        with contextlib.suppress(OSError):
            for entry in list(os.scandir(path)):
                if entry.is_dir(follow_symlinks=False):
                    os.rmdir(entry.path)
            os.rmdir(path)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
