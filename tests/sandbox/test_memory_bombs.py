"""Several episodes of one worker grasp for memory at once, each in another way; those beside them lose nothing."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pyvision_env.errors import SandboxError
from pyvision_env.sandbox import Sandbox

FAMILY = """
import os, mmap, time
for _ in range(20):
    if os.fork() == 0:
        {each}
        time.sleep(60)
time.sleep(60)
"""
BOMBS = {
    "processes": FAMILY.format(each="hoard = bytearray(60_000_000)"),
    "numpy": FAMILY.format(each="hoard = np.ones(8_000_000)"),
    "shared": FAMILY.format(each="m = mmap.mmap(-1, 60_000_000); m.write(b'x' * 60_000_000)"),
    "populated": FAMILY.format(each="m = mmap.mmap(-1, 60 << 20, flags=mmap.MAP_PRIVATE | 0x8000)"),
    "tmpfs": "n = 0\nwhile True:\n    open(f'f{n}', 'wb').write(bytes(4_000_000)); n += 1",
    "memfd": "import os\nwhile True:\n    os.write(os.memfd_create('x'), bytes(50_000_000))",
}
WAVES = (("processes", "shared", "populated"), ("numpy", "tmpfs", "memfd"))
ENDS = (
    "RuntimeLost: the Python runtime ended (its processes used more than 512 MiB of memory)",
    "RuntimeLost: the Python runtime ended (memory was short in its worker, and it held most of it: ",
    "Timeout: the code ran longer than ",
    "MemoryError",
    "OSError: [Errno ",
    "PermissionError: [Errno ",
    "BlockingIOError: [Errno ",
)


@pytest.mark.parametrize("kind", ["local", pytest.param("docker", marks=pytest.mark.docker)])
def test_memory_bombs_of_several_episodes_at_once_take_nothing_from_their_neighbours(
    kind: str, sandbox_of: Callable[[str], Sandbox]
) -> None:
    sandbox = sandbox_of(kind)
    if not sandbox.isolation.guarantees["memory"]:
        # Whoever may not make control groups is told so, and what is done instead.
        assert any("control group" in note and "watchdog" in note for note in sandbox.isolation.notes)
        return
    with sandbox.open() as neighbour, sandbox.open() as idle:
        assert neighbour.run("hoard = np.ones(20_000_000); name = 'neighbour'", timeout=60).error is None
        assert idle.run("name = 'idle'", timeout=60).error is None
        workers = list(sandbox._links)

        def attack(name: str) -> str:
            with sandbox.open() as attacker:
                try:
                    return attacker.run(BOMBS[name], timeout=8).error or "none"
                except SandboxError as error:
                    return f"the whole worker was lost: {error}"

        for wave in WAVES:
            with ThreadPoolExecutor(len(wave)) as threads:
                errors = list(threads.map(attack, wave))
            assert all(error.startswith(ENDS) for error in errors), errors
            assert neighbour.run("print(name, hoard.sum())", timeout=60).text == "neighbour 20000000.0\n"
            assert idle.run("print(name)", timeout=60).text == "idle\n"
        assert sandbox._links == workers, "the zygote was not replaced"
