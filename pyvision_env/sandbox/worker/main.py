"""Entry point of the worker: ``python -s -P main.py SETTINGS`` with one JSON object.

``control`` is the path of the host's control socket or the number of an inherited descriptor; the other keys are those
of ``zygote.Settings``.
"""

from __future__ import annotations

import importlib.util
import json
import socket
import sys
from pathlib import Path

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


def main(argument: str) -> int:
    """Connect to the host and serve it; returns the exit code."""
    _load_package(Path(__file__).resolve().parent)
    settings = json.loads(argument)
    importlib.import_module(f"{_PACKAGE}.fonts").import_matplotlib(Path(settings["slots"][0]))
    zygote = importlib.import_module(f"{_PACKAGE}.zygote")
    address = settings.pop("control")
    if isinstance(address, int):
        control = socket.socket(fileno=address)
        control.set_inheritable(False)
    else:
        control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.connect(address)
    return int(zygote.run(control, zygote.Settings(**settings)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
