"""The soak benchmark, shorter and in a process of its own: a leak of whatever kind shows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from soak import COUNTS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LEAKY = f"""
import os, sys
sys.path.insert(0, {str(BENCHMARKS)!r})
from soak import soak, report
from pyvision_env.sandbox import make_sandbox
import json
hoard = []
def leak():
    hoard.append((os.open('/dev/null', os.O_RDONLY), bytearray(b'x') * (1 << 20)))
with make_sandbox('local', containers=1) as sandbox:
    print(json.dumps(report(soak(sandbox, 40, 2, at_once=4, warm_up=4, after_each=leak), sandbox)))
"""


def figures(*command: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["wrong"] == 0
    return dict(told["figures"])


def changed(rows: dict[str, Any]) -> set[str]:
    return {name for name in COUNTS if rows[name]["least"] != rows[name]["most"]}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["local", pytest.param("docker", marks=pytest.mark.docker)])
def test_after_hundreds_of_episodes_nothing_has_grown(kind: str, request: pytest.FixtureRequest) -> None:
    if kind == "docker":
        request.getfixturevalue("sandbox_image")
    options = ("--sandbox", kind, "--episodes", "120", "--batches", "6", "--at-once", "4", "--warm-up", "60", "--json")
    rows = figures(str(BENCHMARKS / "soak.py"), *options)
    assert changed(rows) == set()
    assert rows["worker_processes"]["most"] == 1
    assert rows["slots_tmpfs_kib"]["most"] == 0
    # A picture is 0.3 MiB here, so that one kept for each episode would be forty.
    assert rows["client_rss_mib"]["last"] - rows["client_rss_mib"]["first"] < 15
    assert rows["zygote_pss_mib"]["last"] - rows["zygote_pss_mib"]["first"] < 15


@pytest.mark.timeout(900)
def test_a_leak_of_a_descriptor_or_of_memory_is_seen() -> None:
    """What the test above relies on: the same run with leaks of ours does not pass."""
    rows = figures("-c", LEAKY)
    assert changed(rows) == {"client_descriptors"}
    assert rows["client_rss_mib"]["last"] - rows["client_rss_mib"]["first"] > 15
