"""Launcher of a local worker: leaves the host's file system for a private read-only root, then becomes the worker.

``python -I local_root.py SETTINGS`` with one JSON object: ``python`` (interpreter), ``main`` (the worker's entry
point), ``binds`` (paths to keep, at the same places), ``hidden`` (folders below them that must look empty), ``slots``
(how many), ``disk_mb`` (size of each), ``scratch`` (a directory that may be made on the host where a private root is
refused), ``control`` (an inherited descriptor), ``environment`` (of the worker), ``unconfined`` (do without a private
root), ``groups`` (control groups that go with the worker, if any).
"""

from __future__ import annotations

import importlib.util
import json
import os
import stat
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_DEVICES = ("null", "full", "random", "urandom")
_USER = 65534
_PASSWD = f"sandbox:x:{_USER}:{_USER}:sandbox:/:/usr/sbin/nologin\n"
_SLOTS = "/s"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).resolve().parent / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{name}.py must lie beside local_root.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def enter_private_root(
    kernel: Any,
    binds: list[str],
    hidden: list[str],
    slots: int,
    disk_mb: int,
    groups: str | None = None,
    control: int | None = None,
) -> None:
    """Move into new namespaces whose root holds only ``binds`` (read-only), devices, /proc and the slots.

    Returns in a child that is pid 1 of its namespace; the parent waits for it, takes ``groups`` away and exits with its
    code.

    Raises:
        OSError: The host refuses a step.
    """
    flags = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
    uid, gid = os.getuid(), os.getgid()
    # The root user of a container may do no more than anybody else, and goes on as an ordinary user: one called root
    # could not be mapped again into the episodes' namespaces.
    owner = _USER if uid == 0 else uid
    cleaning = _load("cleaning")
    if groups is not None:
        # The parent's root becomes the private one too, and from there this directory alone can still be reached.
        os.chdir(os.path.dirname(groups))
    privileged = uid == 0 and _may_unshare(kernel, flags)
    if not privileged:
        kernel.unshare(flags | kernel.CLONE_NEWUSER)
        kernel.map_current_user(uid, gid, owner, _USER if uid == 0 else gid)
    pid = os.fork()
    if pid:
        if control is not None:
            # The host learns of the worker's end by this socket closing, and must not wait for this process to notice.
            os.close(control)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if groups is not None:
            cleaning.remove_groups(Path(os.path.basename(groups)))
        os._exit(code & 0xFF)
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    _build_root(kernel, binds, hidden, slots, disk_mb, owner)
    kernel.pivot_root_here()
    kernel.mount(None, "/", None, kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID)
    if privileged:
        os.setgroups([])
        os.setresgid(_USER, _USER, _USER)
        os.setresuid(_USER, _USER, _USER)
    else:
        kernel.drop_capabilities()
    kernel.no_new_privileges()


def _may_unshare(kernel: Any, flags: int) -> bool:
    try:
        kernel.unshare(flags)
    except PermissionError:
        return False
    return True


def _build_root(kernel: Any, binds: list[str], hidden: list[str], slots: int, disk_mb: int, owner: int) -> None:
    """A tmpfs over /tmp of this mount namespace, filled and made the current directory."""
    safe = kernel.MS_NOSUID | kernel.MS_NODEV
    # The sources are opened before the new root may cover them (an interpreter below /tmp, say).
    links: list[tuple[str, str]] = []
    sources: list[tuple[str, int]] = []
    for path in sorted({os.path.normpath(bind) for bind in binds}):
        if os.path.islink(path):
            links.append((path, os.readlink(path)))
        elif os.path.exists(path):
            sources.append((path, os.open(path, os.O_PATH)))
    devices = [(f"/dev/{name}", os.open(f"/dev/{name}", os.O_PATH)) for name in _DEVICES]
    root = "/tmp"
    kernel.mount("tmpfs", root, "tmpfs", safe, "size=4m,mode=0755")
    os.chdir(root)
    for path, aim in links:
        os.makedirs(root + os.path.dirname(path), mode=0o755, exist_ok=True)
        os.symlink(aim, root + path)
    inside = [(path, fd) for path, fd in sources if any(_is_below(path, folder) for folder in hidden)]
    for path, fd in sources:
        if (path, fd) not in inside:
            _bind_source(kernel, fd, root + path, kernel.MS_RDONLY | safe)
    covers = [root + folder for folder in hidden if os.path.isdir(root + folder)]
    for cover in covers:
        kernel.mount("tmpfs", cover, "tmpfs", safe | kernel.MS_NOEXEC, "size=64k,mode=0755")
    for path, fd in inside:
        _bind_source(kernel, fd, root + path, kernel.MS_RDONLY | safe)
    for cover in covers:
        kernel.mount(None, cover, None, kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | safe | kernel.MS_NOEXEC)
    for path, fd in devices:
        os.makedirs(root + "/dev", exist_ok=True)
        Path(root + path).touch()
        _bind(kernel, fd, root + path, None)
    os.makedirs(root + "/etc", exist_ok=True)
    Path(root + "/etc/passwd").write_text(_PASSWD)
    os.makedirs(root + "/proc")
    kernel.mount("proc", root + "/proc", "proc", safe | kernel.MS_NOEXEC)
    for number in range(slots):
        slot = f"{root}{_SLOTS}/{number}"
        os.makedirs(slot, mode=0o755)
        options = f"size={disk_mb}m,nr_inodes=4096,mode=0700"
        kernel.mount("tmpfs", slot, "tmpfs", safe | kernel.MS_NOEXEC, options)
        os.chown(slot, owner, -1)


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder + "/")


def _bind_source(kernel: Any, fd: int, target: str, flags: int) -> None:
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        os.makedirs(target, mode=0o755, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
        Path(target).touch()
    _bind(kernel, fd, target, flags)


def _bind(kernel: Any, fd: int, target: str, flags: int | None) -> None:
    kernel.mount(f"/proc/self/fd/{fd}", target, None, kernel.MS_BIND | kernel.MS_REC)
    os.close(fd)
    if flags is not None:
        # Flags that the host has locked on its own mount must stay set, or an unprivileged remount is refused.
        locked = os.statvfs(target).f_flag & (kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
        kernel.mount(None, target, None, kernel.MS_REMOUNT | kernel.MS_BIND | flags | locked)


def main(argument: str) -> None:
    """Enter the private root, or say why not, and become the worker."""
    options = json.loads(argument)
    kernel = _load("kernel")
    notes = []
    private = False
    if not options["unconfined"]:
        reason = _refusal(kernel, options)
        if reason is None:
            enter_private_root(
                kernel,
                options["binds"],
                options["hidden"],
                options["slots"],
                options["disk_mb"],
                options["groups"],
                options["control"],
            )
            private = True
        else:
            notes.append(f"no private root ({reason}): Landlock alone keeps code from the host's files")
    if private:
        slots = [f"{_SLOTS}/{number}" for number in range(options["slots"])]
    else:
        slots = [f"{options['scratch']}/{number}" for number in range(options["slots"])]
        for path in (options["scratch"], *slots):
            Path(path).mkdir(mode=0o700)
    control = options["control"]
    settings = {
        "control": control, "slots": slots, "private_root": private, "quota": private,
        "scratch": None if private else options["scratch"], "groups": None if private else options["groups"],
        "unconfined": options["unconfined"], "notes": notes,
    }  # fmt: skip
    os.set_inheritable(control, True)
    # Isolated as by -I, but for the variables: the environment is ours alone, and it fixes the order of sets.
    command = [options["python"], "-s", "-P", options["main"], json.dumps(settings)]
    os.execve(command[0], command, options["environment"])


def _refusal(kernel: Any, options: dict[str, Any]) -> str | None:
    """Try the private root in a child; the reason when the host refuses it."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            # The child of this child goes on after the fork inside; either way nothing is left behind.
            enter_private_root(kernel, options["binds"], options["hidden"], 1, 1)
        except OSError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        reason = pipe.read().decode()
    os.waitpid(pid, 0)
    return reason or None


if __name__ == "__main__":
    main(sys.argv[1])
