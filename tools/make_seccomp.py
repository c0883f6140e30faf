"""Write the seccomp filters of episodes (BPF, one per architecture) and the container's seccomp profile (JSON).

Usage: ``python tools/make_seccomp.py [--check]``; needs libseccomp 2.5.4 or newer and ``pip install pyseccomp``. The
rules are in ``seccomp_tables.py``. What is written is committed, so that nobody needs libseccomp to run the sandbox.
"""

from __future__ import annotations

import argparse
import errno
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyseccomp
from seccomp_tables import Test, container_rules, episode_rules

SANDBOX = Path(__file__).parents[1] / "pyvision_env" / "sandbox"
FILTERS = SANDBOX / "worker" / "filters"
PROFILE = SANDBOX / "docker_seccomp.json"
ARCHITECTURES = {"x86_64": pyseccomp.Arch.X86_64, "aarch64": pyseccomp.Arch.AARCH64}
KINDS = ("base", "strict")
UNKNOWN = errno.ENOSYS


def make_filter(architecture: str, kind: str) -> bytes:
    """The filter as an array of ``struct sock_filter``.

    A call no rule names ends with ENOSYS; one made through another architecture's table (i386, x32) kills the process.
    """
    made = pyseccomp.SyscallFilter(pyseccomp.ERRNO(UNKNOWN))
    made.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
    made.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)
    wanted = ARCHITECTURES[architecture]
    if wanted != pyseccomp.system_arch():
        made.add_arch(wanted)
        made.remove_arch(pyseccomp.system_arch())
    for rule in episode_rules(strict=kind == "strict"):
        if rule.error == UNKNOWN:  # the library refuses a rule that repeats the default
            continue
        action = pyseccomp.ALLOW if rule.error is None else pyseccomp.ERRNO(rule.error)
        made.add_rule(action, rule.name, *(_argument(test) for test in rule.tests))
    with tempfile.TemporaryFile() as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()


def make_profile() -> str:
    """The container's profile in the engine's JSON, rules of one outcome gathered."""
    syscalls: list[dict[str, object]] = []
    plain: dict[int | None, list[str]] = {}
    for rule in container_rules():
        if rule.tests:
            syscalls.append({"names": [rule.name], **_action(rule.error), "args": [_json(test) for test in rule.tests]})
        else:
            plain.setdefault(rule.error, []).append(rule.name)
    gathered = [{"names": sorted(set(names)), **_action(error)} for error, names in plain.items()]
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": UNKNOWN,
        "archMap": [{"architecture": f"SCMP_ARCH_{name.upper()}", "subArchitectures": []} for name in ARCHITECTURES],
        "syscalls": gathered + syscalls,
    }
    return json.dumps(profile, indent=1) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Write the files, or with ``--check`` say whether those that are there are the ones that would be written."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file would change")
    check = parser.parse_args(arguments).check
    files = {PROFILE: make_profile().encode()}
    files |= {FILTERS / f"{arch}-{kind}.bpf": make_filter(arch, kind) for arch in ARCHITECTURES for kind in KINDS}
    stale = [path for path, data in files.items() if not path.is_file() or path.read_bytes() != data]
    if not check:
        FILTERS.mkdir(parents=True, exist_ok=True)
        for path in stale:
            path.write_bytes(files[path])
    for path in stale:
        sys.stdout.write(f"{'differs' if check else 'wrote'}: {path.name}\n")
    return int(check and bool(stale))


def _argument(test: Test) -> pyseccomp.Arg:
    if test.negate:
        return pyseccomp.Arg(test.index, pyseccomp.NE, test.value)
    return pyseccomp.Arg(test.index, pyseccomp.MASKED_EQ, test.mask, test.value)


def _json(test: Test) -> dict[str, object]:
    if test.negate:
        return {"index": test.index, "value": test.value, "op": "SCMP_CMP_NE"}
    if test.mask == 2**64 - 1:
        return {"index": test.index, "value": test.value, "op": "SCMP_CMP_EQ"}
    return {"index": test.index, "value": test.mask, "valueTwo": test.value, "op": "SCMP_CMP_MASKED_EQ"}


def _action(error: int | None) -> dict[str, object]:
    return {"action": "SCMP_ACT_ALLOW"} if error is None else {"action": "SCMP_ACT_ERRNO", "errnoRet": error}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
