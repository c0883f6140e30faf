"""Entry point of the worker: ``python -s -P main.py SETTINGS`` with one JSON object.

``control`` is the path of the host's control socket or the number of an inherited descriptor; the other keys are those
of ``zygote.Settings``.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import resource
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any

_PACKAGE = "_pyvision_worker"


def _load_package(directory: Path) -> None:
    """Make the worker importable under a name that no code of a model will meet by accident."""
    spec = importlib.util.spec_from_file_location(
        _PACKAGE, directory / "__init__.py", submodule_search_locations=[str(directory)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"no worker package in {directory}")
    package = importlib.util.module_from_spec(spec)
    sys.modules[_PACKAGE] = package
    spec.loader.exec_module(package)


def _connect(address: int | str) -> socket.socket:
    if isinstance(address, int):
        control = socket.socket(fileno=address)
        control.set_inheritable(False)
    else:
        control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.connect(address)
    return control


def _end_with_host(control: socket.socket, settings: dict[str, Any]) -> None:
    """End when the host hangs up, also in the seconds of importing, when nobody looks at the socket.

    The kernel signals what happens on it; the zygote switches that off when it begins to serve.
    """

    def look(*_: object) -> None:
        try:
            if control.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                return
        except BlockingIOError:
            return
        except OSError:  # it was reset
            pass
        if settings.get("scratch"):
            shutil.rmtree(settings["scratch"], ignore_errors=True)
        os._exit(1)

    signal.signal(signal.SIGIO, look)
    fcntl.fcntl(control, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(control, fcntl.F_SETFL, fcntl.fcntl(control, fcntl.F_GETFL) | os.O_ASYNC)
    look()


def main(argument: str) -> int:
    """Connect to the host and serve it; returns the exit code."""
    settings = json.loads(argument)
    # The files of many slots' control groups are kept open; an episode's own limit is another.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    control = _connect(settings.pop("control"))
    _end_with_host(control, settings)
    _load_package(Path(__file__).resolve().parent)
    importlib.import_module(f"{_PACKAGE}.fonts").import_matplotlib(Path(settings["slots"][0]))
    zygote = importlib.import_module(f"{_PACKAGE}.zygote")
    return int(zygote.run(control, zygote.Settings(**settings)))


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stderr.flush()
    # Taking a warm interpreter down in good order takes longer than all else that ends a worker.
    os._exit(code)
