"""The client that the chaos benchmark watches and kills: runs numbered episodes and tells how each of them went.

    python chaos_client.py SETTINGS        one JSON object: kind, episodes (numbers), at_once, options (of the sandbox)

A line of JSON before each episode and one after it; at the end, with everything closed, one on what is still held.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from pyvision_env.config import Limits
from pyvision_env.errors import InfrastructureError
from pyvision_env.sandbox import Sandbox, make_sandbox

_STEPS = 3
# A typed error says that the episode may be tried again; an engine is away for seconds.
_ATTEMPTS, _PAUSE_S = 20, 0.5
_say_lock = threading.Lock()


def say(**line: Any) -> None:
    """Tell the watching process; whole lines only."""
    with _say_lock:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def play(sandbox: Sandbox, number: int) -> dict[str, Any]:
    """One episode whose every output says whose it is."""
    shade = number % 251
    image = np.full((60 + number % 7, 80, 3), shade, np.uint8)
    secret = f"{number}-{os.urandom(8).hex()}"
    with sandbox.open(images=[image]) as episode:
        told = episode.run(f"secret = {secret!r}\nprint(secret, image_clue_0.size, image_clue_0.getpixel((1, 1)))")
        if not told.state_lost and told.text != f"{secret} {(80, image.shape[0])} {(shade,) * 3}\n":
            return {"outcome": "wrong", "said": told.text[:300]}
        for _ in range(_STEPS):
            lost = told.state_lost
            told = episode.run("import time; time.sleep(0.02); print(secret)\nimage_clue_0.show()")
            if told.state_lost:
                continue
            if lost:
                # The runtime is a fresh one: the name is gone, and so it must be.
                right = told.error is not None and told.error.startswith("NameError")
                episode.run(f"secret = {secret!r}")
            else:
                right = told.text == f"{secret}\n" and all((shown == shade).all() for shown in told.images)
            if not right:
                return {"outcome": "wrong", "said": told.text[:300]}
    return {"outcome": "ok"}


def attempt(sandbox: Sandbox, number: int) -> None:
    """Play an episode, anew after a typed error, and tell the outcome, whatever it is."""
    say(begin=number)
    for attempts_left in range(_ATTEMPTS - 1, -1, -1):
        try:
            outcome = play(sandbox, number)
            break
        except InfrastructureError as error:
            outcome = {"outcome": "error", "type": type(error).__name__, "message": str(error)[:300]}
            if attempts_left:
                say(again=number, **outcome)
                time.sleep(_PAUSE_S)
        except BaseException as error:  # noqa: BLE001 - an error without a type of ours is what is looked for
            outcome = {"outcome": "untyped", "type": type(error).__name__, "message": str(error)[:300]}
            break
    say(end=number, **outcome)


def held() -> dict[str, int]:
    """What of a sandbox could be left in this process."""
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            links.append(str(entry.readlink()))
    return {
        "threads": threading.active_count(),
        "memfds": sum("memfd:" in link for link in links),
        "sockets": sum(link.startswith("socket:") for link in links),
    }


def main(argument: str) -> None:
    settings = json.loads(argument)
    limits = Limits(code_timeout_s=20, kill_grace_s=5)
    before = held()
    sandbox = make_sandbox(settings["kind"], limits=limits, **settings["options"])
    with sandbox, ThreadPoolExecutor(settings["at_once"]) as threads:
        list(threads.map(attempt, itertools.repeat(sandbox), settings["episodes"]))
    del sandbox
    # The engine's client library leaves a socket that could not connect to the collector.
    gc.collect()
    say(left={name: count - before[name] for name, count in held().items()})


if __name__ == "__main__":
    main(sys.argv[1])
