"""What this machine offers: one check after another, each with the command that mends what is missing."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pyvision_env.errors import PyVisionError, SandboxError

Status = Literal["ok", "warn", "missing"]
"""``warn``: something optional or weaker than could be; ``missing``: something is needed and not there."""

_LEAST_MEMORY_MB, _LEAST_DISK_MB = 2_048, 2_048
# All namespaces an episode lives in: user, pid, network, ipc, uts.
_UNSHARE = "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x10000000 | 0x20000000 | 0x40000000 | 0xC000000))"
_EXTRAS = {
    "local": ("scipy", "scikit-image", "scikit-learn", "opencv-python-headless", "tqdm"),
    "demo": ("scikit-image", "scikit-learn", "scikit-video"),
    "datasets": ("datasets",),
    "ray": ("ray",),
    "train": ("torch", "transformers"),
    "verl": ("verl", "transformers", "tensordict"),
}
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_DISTRIBUTION = "pyvision-rl"


_RUNSC = "runsc"
GVISOR = "gVisor for docker-strict with SandboxConfig(runtime='runsc')"
"""What stands in the check of the runtimes where the engine offers gVisor."""
KINDS = ("docker", "docker-strict", "local")
"""The confined kinds of sandbox on this machine."""
CLUSTER_KIND = "ray"
"""The kind on the nodes of a cluster, tried only when asked for: joining one is no look at this machine."""


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: What was looked at.
        status: ``ok``, ``warn`` or ``missing``.
        detail: What was found.
        fix: The command or setting that mends it; empty when nothing is to be done.
    """

    name: str
    status: Status
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class SandboxCheck:
    """Whether a kind of sandbox works here: one was opened and ran code, or the reason why not.

    Attributes:
        kind: The kind.
        works: It ran ``print(1)`` and the text came back.
        check: The outcome as a line of the report.
    """

    kind: str
    works: bool
    check: Check


@dataclass(frozen=True, slots=True)
class Report:
    """All checks of a machine.

    Attributes:
        checks: In the order they were made.
        working: Kinds of confined sandbox that work.
    """

    checks: tuple[Check, ...]
    working: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether at least one confined sandbox works."""
        return bool(self.working)


def examine(kinds: tuple[str, ...] = KINDS, on_check: Callable[[Check], None] = lambda _check: None) -> Report:
    """Run all checks.

    Args:
        kinds: Kinds of sandbox to try; docker kinds are tried only where engine and image are in order.
        on_check: Receives each outcome as it comes.
    """
    checks: list[Check] = []

    def add(check: Check) -> None:
        checks.append(check)
        on_check(check)

    for check in check_machine():
        add(check)
    engine = list(check_engine())
    for check in engine:
        add(check)
    docker_ready = any(check.name == "image" and check.status == "ok" for check in engine)
    working = []
    for kind in kinds:
        if kind.startswith("docker") and not docker_ready:
            add(Check(f"sandbox {kind}", "warn", "not tried: engine or image is missing", _sandbox_fix(kind)))
            continue
        tried = check_sandbox(kind)
        add(tried.check)
        if tried.works:
            working.append(kind)
        if kind == "docker-strict" and any(GVISOR in check.detail for check in engine if check.name == "runtimes"):
            add(check_sandbox(kind, _RUNSC).check)
    return Report(tuple(checks), tuple(working))


def check_machine() -> Iterator[Check]:
    """Look at Python, the packages, the kernel and the machine; needs no engine."""
    yield _python()
    yield _packages()
    for extra in _EXTRAS:
        yield _extra(extra)
    yield _user_namespaces()
    yield _landlock()
    yield _seccomp()
    yield _cgroups()
    yield _memory()
    yield _disk()
    yield _fonts()
    yield _chromium()


def check_engine(image: str = "pyvision-sandbox") -> Iterator[Check]:
    """Look at the Docker engine, its runtimes and the sandbox image."""
    import docker.errors

    from pyvision_env.sandbox.containers import connect
    from pyvision_env.sandbox.image import check_image

    try:
        client = connect(timeout=5)
    except SandboxError as error:
        address = os.environ.get("DOCKER_HOST", "the default socket")
        yield Check("engine", "warn", f"none answers at {address}: {_first_line(error)}", _engine_fix())
        return
    try:
        try:
            info: dict[str, Any] = client.info()
        except (docker.errors.DockerException, OSError) as error:
            yield Check("engine", "warn", f"it answers, but not when asked about itself: {error}", _engine_fix())
            return
        yield Check(
            "engine",
            "ok",
            f"Docker {info.get('ServerVersion', '?')}, storage {info.get('Driver', '?')}, "
            f"cgroup v{info.get('CgroupVersion', '?')} ({info.get('CgroupDriver', '?')})",
        )
        runtimes = sorted(info.get("Runtimes") or {})
        if _RUNSC in runtimes:
            yield Check("runtimes", "ok", f"{', '.join(runtimes)}; {GVISOR}")
        else:
            yield Check("runtimes", "ok", f"{', '.join(runtimes)} (gVisor's runsc is optional and not there)")
        try:
            found = check_image(client, image)
        except SandboxError as error:
            yield Check("image", "missing", _first_line(error), "pyvision-env sandbox build")
        else:
            yield Check("image", "ok", f"{image} holds this package's worker, {found.size_bytes / 1e6:,.0f} MB")
    finally:
        client.close()


def check_sandbox(kind: str, runtime: str | None = None) -> SandboxCheck:
    """Open a sandbox of this kind, its containers on an OCI runtime of the engine's, and run a line in it."""
    from pyvision_env.sandbox import make_sandbox

    name = f"sandbox {kind}" + (f" on {runtime}" if runtime else "")
    # One worker and no warm ones: this is a look, not a run.
    options: dict[str, Any] = {"containers": 1, "episodes_per_container": 4, "warm": 0, "runtime": runtime}
    try:
        with make_sandbox(kind, **options) as sandbox, sandbox.open() as episode:
            result = episode.run("print(1)")
            isolation = sandbox.isolation
    except PyVisionError as error:
        return SandboxCheck(kind, False, Check(name, "warn", f"does not work: {_reason(error)}", _sandbox_fix(kind)))
    if result.text.strip() != "1":
        return SandboxCheck(kind, False, Check(name, "warn", f"print(1) gave {result.text!r}", _sandbox_fix(kind)))
    missing = [guarantee for guarantee in isolation.missing if guarantee != "container"]
    detail = f"works, confinement {isolation.rung}"
    if not missing:
        return SandboxCheck(kind, True, Check(name, "ok", detail))
    notes = f" ({'; '.join(isolation.notes)})" if isolation.notes else ""
    detail = f"{detail}; does not give: {', '.join(missing)}{notes}"
    return SandboxCheck(kind, True, Check(name, "warn", detail, _sandbox_fix(kind)))


def _python() -> Check:
    found = f"{platform.python_version()} at {sys.executable}, {platform.system()} {platform.machine()}"
    if sys.platform != "linux":
        return Check("python", "warn", f"{found}; the local sandbox needs Linux", "use the docker sandbox")
    return Check("python", "ok", found)


def _packages() -> Check:
    wanted = [need for need in metadata.requires(_DISTRIBUTION) or [] if "extra ==" not in need]
    absent = [name for name in map(_project_name, wanted) if _version(name) is None]
    if absent:
        return Check("packages", "missing", f"not installed: {', '.join(absent)}", "pip install --upgrade pyvision-rl")
    return Check("packages", "ok", f"pyvision-rl {metadata.version(_DISTRIBUTION)} and its {len(wanted)} requirements")


def _project_name(requirement: str) -> str:
    end = next((i for i, c in enumerate(requirement) if not (c.isalnum() or c in "-_.")), len(requirement))
    return requirement[:end]


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _extra(extra: str) -> Check:
    versions = {name: _version(name) for name in _EXTRAS[extra]}
    absent = [name for name, version in versions.items() if version is None]
    if not absent:
        return Check(f"extra {extra}", "ok", ", ".join(f"{name} {version}" for name, version in versions.items()))
    return Check(
        f"extra {extra}",
        "warn",
        f"not installed: {', '.join(absent)} (optional)",
        f'pip install "pyvision-rl[{extra}]"',
    )


def _user_namespaces() -> Check:
    name = "user namespaces"
    if sys.platform != "linux":
        return Check(name, "warn", "Linux only")
    try:
        allowed = (
            subprocess.run([sys.executable, "-I", "-c", _UNSHARE], capture_output=True, timeout=20).returncode == 0
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(name, "warn", f"could not be tried: {error}")
    if allowed:
        return Check(name, "ok", "allowed: episodes may start processes of their own")
    for setting, wanted in (
        ("kernel.unprivileged_userns_clone", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "0"),
        ("user.max_user_namespaces", "15000"),
    ):
        value = _sysctl(setting)
        refuses = value is not None and value != wanted and (setting != "user.max_user_namespaces" or value == "0")
        if refuses:
            return Check(name, "warn", f"refused: {setting} is {value}", f"sudo sysctl -w {setting}={wanted}")
    detail = "refused, as in most containers: episodes are confined by Landlock and a stricter filter instead"
    return Check(name, "warn", detail)


def _sysctl(name: str) -> str | None:
    try:
        return (Path("/proc/sys") / name.replace(".", "/")).read_text().strip()
    except OSError:
        return None


def _landlock() -> Check:
    if sys.platform != "linux":
        return Check("Landlock", "warn", "Linux only")
    from pyvision_env.sandbox.worker import kernel

    version = kernel.landlock_abi()
    if version:
        return Check("Landlock", "ok", f"ABI {version}, kernel {platform.release()}")
    fix = "boot with lsm=landlock,... on Linux 5.13 or later; without it use the docker-strict sandbox"
    return Check("Landlock", "warn", f"not offered by kernel {platform.release()}", fix)


def _seccomp() -> Check:
    if sys.platform != "linux":
        return Check("seccomp", "warn", "Linux only")
    from pyvision_env.sandbox.worker import kernel

    try:
        kernel.filter_blob("base")
    except FileNotFoundError:
        return Check("seccomp", "missing", f"there is no filter for {platform.machine()}", "use x86_64 or aarch64")
    if "Seccomp:" not in Path("/proc/self/status").read_text():
        return Check("seccomp", "missing", "not offered by this kernel", "use a kernel with CONFIG_SECCOMP_FILTER")
    return Check("seccomp", "ok", f"offered, with filters for {platform.machine()}")


def _cgroups() -> Check:
    from pyvision_env.sandbox.memory_groups import MemoryGroupError, beside_this_process

    root = Path("/sys/fs/cgroup")
    version = "v2" if (root / "cgroup.controllers").is_file() else "v1"
    try:
        beside_this_process(1, 1 << 30).remove()
    except MemoryGroupError as error:
        detail = f"{version}; {error}: a watchdog bounds an episode's memory, not the kernel"
        return Check("cgroups", "warn", detail, "run as root, or use docker-strict: a container bounds each episode")
    return Check("cgroups", "ok", f"{version}; each episode's memory is bounded by a group of its own")


def _memory() -> Check:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return Check("memory", "warn", "cannot be read here")
    values = {name: int(rest.split()[0]) // 1024 for name, _, rest in (line.partition(":") for line in lines) if rest}
    free = values.get("MemAvailable", 0)
    detail = f"{free:,} MiB free of {values.get('MemTotal', 0):,}, {os.cpu_count()} processors"
    if free < _LEAST_MEMORY_MB:
        return Check("memory", "warn", detail, "end other programs, or lower SandboxConfig(memory_mb=...)")
    return Check("memory", "ok", detail)


def _disk() -> Check:
    places = {"here": Path.cwd(), "temporary files": Path(tempfile.gettempdir())}
    free = {name: shutil.disk_usage(path).free >> 20 for name, path in places.items()}
    detail = ", ".join(f"{size:,} MiB free for {name}" for name, size in free.items())
    if min(free.values()) < _LEAST_DISK_MB:
        return Check("disk", "warn", detail, "free some space, or set TMPDIR to a larger file system")
    return Check("disk", "ok", detail)


def _fonts() -> Check:
    spec = importlib.util.find_spec("matplotlib")
    homes = list(spec.submodule_search_locations or []) if spec is not None else []
    if any((Path(home) / "mpl-data/fonts/ttf/DejaVuSans.ttf").is_file() for home in homes):
        return Check("fonts", "ok", "matplotlib's own DejaVu; others are found where fontconfig has them")
    return Check("fonts", "missing", "matplotlib's fonts are not there", "pip install --force-reinstall matplotlib")


def _chromium() -> Check:
    found = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if found:
        return Check("chromium", "ok", found)
    detail = "not found; only the tests of the page need it, any browser shows the page"
    return Check("chromium", "warn", f"{detail} (optional)", "sudo apt-get install chromium")


def _engine_fix() -> str:
    if shutil.which("dockerd") or shutil.which("docker"):
        return "sudo systemctl start docker (or run dockerd as root), and add yourself to the group docker"
    return "sudo apt-get install docker.io, and add yourself to the group docker"


def _sandbox_fix(kind: str) -> str:
    if kind == CLUSTER_KIND:
        return "name a cluster in RAY_ADDRESS (`ray start --head` starts one), with pyvision-rl on every node"
    if kind.startswith("docker"):
        return "pyvision-env sandbox build (with an engine running)"
    return "use the docker sandbox for full isolation"


def _first_line(error: Exception) -> str:
    return _reason(error).split("\n", 1)[0]


def _reason(error: Exception) -> str:
    """What an error says, less its advice to run this very command."""
    return re.sub(r"see `pyvision-env doctor`, or |; `pyvision-env doctor`[^;.]*", "", str(error))
