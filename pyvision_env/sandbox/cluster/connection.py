"""The connection of a process to a Ray cluster: made on first use, held as long as a sandbox needs it."""

from __future__ import annotations

import os
import socket
import threading

import ray
import ray.exceptions
import ray.util

from pyvision_env.errors import SandboxUnavailableError

_lock = threading.Lock()
_holders = 0
_made_here = False
_KNOCK_S = 10.0
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def connect(address: str) -> None:
    """Join the cluster, or use the connection this process already has; each call is undone by ``disconnect``.

    Raises:
        SandboxUnavailableError: No cluster answers there, or it runs other versions of Ray or Python.
    """
    global _holders, _made_here
    with _lock:
        if not ray.is_initialized():
            try:
                _knock(address)
                ray.init(address=address, log_to_driver=False, configure_logging=False)
            except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
                reason = str(error).strip().split("\n", 1)[0]
                raise SandboxUnavailableError(
                    f"no Ray cluster can be joined at {address!r} ({reason}). Start one (`ray start --head` on one "
                    "machine, `ray start --address=...` on the others) and name it in RAY_ADDRESS or cluster.address; "
                    "one that listens on 127.0.0.1 only is found with RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0"
                ) from None
            _made_here = True
        _holders += 1


def disconnect() -> None:
    """Let go of the connection; the last holder ends it if it was made here."""
    global _holders, _made_here
    with _lock:
        _holders -= 1
        if _holders == 0 and _made_here:
            _made_here = False
            ray.shutdown()


def _knock(address: str) -> None:
    """Find out whether anybody listens at a named address: Ray itself would try for many minutes.

    Raises:
        OSError: Nobody does.
    """
    named = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    host, _, port = named.rpartition(":")
    if host and "/" not in named and port.isdigit():
        if host in _LOOPBACK:
            # Ray takes the machine's own address for it, unless told that clusters live on one machine only.
            host = ray.util.get_node_ip_address()
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_S).close()
