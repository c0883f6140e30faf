"""A reader of seccomp filters: what a filter decides on one system call, without a kernel."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

KILL_PROCESS, ALLOW = 0x80000000, 0x7FFF0000
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
AUDIT_ARCH_I386 = 0x40000003
X32_BIT = 0x40000000

_LOAD, _AND, _RETURN, _JUMP, _MAX_STEPS = 0x20, 0x54, 0x06, 0x05, 4096
_COMPARE: dict[int, Callable[[int, int], bool]] = {
    0x15: lambda a, k: a == k,
    0x25: lambda a, k: a > k,
    0x35: lambda a, k: a >= k,
    0x45: lambda a, k: bool(a & k),
}


def decide(program: bytes, arch: int, number: int, args: Sequence[int] = ()) -> int:
    """The action (``SECCOMP_RET_*``) of ``program`` for a system call of the given architecture and arguments."""
    padded = [value & (2**64 - 1) for value in (*args, *[0] * (6 - len(args)))]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, *padded)
    code = list(struct.iter_unpack("<HBBI", program))
    at = accumulator = 0
    for _ in range(_MAX_STEPS):
        op, yes, no, k = code[at]
        at += 1
        if op == _LOAD:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif op == _AND:
            accumulator &= k
        elif op == _JUMP:
            at += k
        elif op in _COMPARE:
            at += yes if _COMPARE[op](accumulator, k) else no
        elif op == _RETURN:
            return int(k)
        else:
            raise AssertionError(f"instruction {op:#x} is not one that libseccomp writes")
    raise AssertionError("the filter does not end")


def errno_of(action: int) -> int | None:
    """The errno of a ``SECCOMP_RET_ERRNO`` action, None for ``SECCOMP_RET_ALLOW``."""
    if action == ALLOW:
        return None
    assert action & 0xFFFF0000 == 0x00050000, hex(action)
    return action & 0xFFFF
