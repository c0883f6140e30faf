"""Reaching out of the episode: the network, the machine's files, other episodes, the kernel's back doors."""

from __future__ import annotations

import ast
import os
import platform
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from samples import clip

from pyvision_env.sandbox import Episode, Sandbox, videos

REFUSED = ("PermissionError: [Errno 13] Permission denied", "PermissionError: [Errno 1] Operation not permitted")


SOCKETS = [
    "socket.create_connection(('1.1.1.1', 80), timeout=1)",
    "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('8.8.8.8', 53))",
    "socket.socket(socket.AF_INET6)",
    "socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)",
    "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "socket.socket(socket.AF_VSOCK)",
    "socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)",
    "socket.socket(socket.AF_UNIX).connect('/var/run/docker.sock')",
    "socket.socket(socket.AF_UNIX).connect('/run/pyvision/control.sock')",
    "socket.socket(socket.AF_UNIX).bind('\\0abstract')",
    "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
]


def test_no_socket_leads_out(attacker: Episode) -> None:
    for code in SOCKETS:
        assert attacker.run(f"import socket\n{code}").error in REFUSED, code


def test_names_are_not_resolved_and_no_page_is_fetched(attacker: Episode) -> None:
    code = "import urllib.request; urllib.request.urlopen('http://example.com', timeout=1)"
    result = attacker.run(code)
    assert result.error is not None
    assert "URLError" in result.error or result.error in REFUSED
    assert attacker.run("import socket; socket.getaddrinfo('example.com', 80)").error is not None


def test_a_listener_on_the_machines_loopback_is_out_of_reach(attacker: Episode) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        assert attacker.run(f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)").error in REFUSED
        code = f"import os; print(os.system('bash -c \"exec 3<>/dev/tcp/127.0.0.1/{port}\" 2>/dev/null') != 0)"
        assert attacker.run(code).text == "True\n"
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_socket_pair_cannot_be_turned_into_a_way_out(attacker: Episode) -> None:
    code = """
import socket
a, b = socket.socketpair()
for use in (lambda: a.connect('/x'), lambda: a.bind('/x'), lambda: a.sendto(b'x', '\\0other'), lambda: a.listen()):
    try:
        use()
        print('worked')
    except OSError as error:
        print(type(error).__name__)
a.sendall(b'fine'); print(b.recv(9))
"""
    assert attacker.run(code).text == "PermissionError\n" * 4 + "b'fine'\n"


@pytest.fixture
def host_secret() -> Iterator[Path]:
    """A file of the machine that every user may read, outside what the sandbox shows."""
    path = Path("/var/tmp") / f"secret-{os.getpid()}.txt"
    path.write_text("the answer is B")
    path.chmod(0o644)
    yield path
    path.unlink()


def test_the_machines_files_cannot_be_read(attacker: Episode, host_secret: Path) -> None:
    assert attacker.run(f"open('{host_secret}')").error is not None
    code = f"""
import os
for path in ('/root', '/home', '/etc/shadow', '/etc/hostname', '/var', '/run', '/sys', '/', '/proc', '/s', '/dev/mem',
             '{host_secret}', '{Path(__file__)}', '{Path.cwd()}', '/var/run/docker.sock', '/dev/kmsg', '/dev/sda'):
    try:
        print('READ', path, os.listdir(path) if os.path.isdir(path) else open(path, 'rb').read(20))
    except OSError:
        pass
print('done')
"""
    assert attacker.run(code).text == "done\n"


def test_nothing_outside_the_episodes_own_folder_can_be_written(attacker: Episode) -> None:
    code = """
import os, sys, numpy
home = os.getcwd()
for folder in ('/', '/tmp', '/var/tmp', '/dev/shm', '/s', '/s/0', '/s/1', '/run', '/usr', '/etc', '..', sys.prefix,
               os.path.dirname(numpy.__file__), '/proc/self'):
    for use in (lambda p: open(p, 'w'), os.mkdir, lambda p: os.symlink('/etc', p), lambda p: os.mkfifo(p)):
        try:
            use(os.path.join(folder, 'planted'))
            print('WROTE', folder)
        except OSError:
            pass
print('done')
"""
    assert attacker.run(code).text == "done\n"


def test_the_environment_and_proc_tell_nothing_of_the_machine(attacker: Episode) -> None:
    code = """
import glob, os
print(sorted(os.environ))
for name in ('environ', 'cmdline', 'mountinfo', 'mounts', 'mountstats', 'cgroup', 'net/tcp', 'root/etc', 'ns', 'smaps'):
    try:
        print('got', name, open('/proc/self/' + name).read()[:200])
    except OSError:
        pass
for path in ('/proc/1/environ', '/proc/cmdline', '/proc/mounts', '/proc/meminfo', '/proc/self/task'):
    try:
        print('got', path, os.listdir(path) if os.path.isdir(path) else open(path).read(100))
    except OSError:
        pass
"""
    result = attacker.run(code)
    assert len(result.text.splitlines()) == 1, result.text
    names = set(ast.literal_eval(result.text))
    assert names <= HARMLESS, names - HARMLESS


HARMLESS = {
    "HOME", "HOSTNAME", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "LANG", "LD_LIBRARY_PATH", "MALLOC_ARENA_MAX",
    "MKL_NUM_THREADS", "MPLBACKEND", "MPLCONFIGDIR", "NUMEXPR_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    "PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "PYTHONUNBUFFERED", "TMPDIR", "XDG_CACHE_HOME",
}  # fmt: skip


def test_other_episodes_cannot_be_seen_signalled_or_read(attacker: Episode, neighbour: Episode) -> None:
    where = neighbour.run("import os; print(os.getcwd()); print(os.readlink('/proc/self'))").text.split()
    home, pid = where[0], where[1]
    slot = str(Path(home).parent)
    code = f"""
import os, signal
def attempt(what, use):
    try:
        print('WORKED', what, use())
    except OSError:
        pass
for path in ('{home}', '{home}/diary.txt', '{slot}', '{slot}/diary.txt', '/proc/1/fd',
             '/proc/{pid}/environ', '/proc/{pid}/mem', '/proc/{pid}/root', '/proc/1/mem', '/proc/1/environ'):
    attempt('read ' + path, lambda: os.listdir(path) if os.path.isdir(path) else open(path, 'rb').read(10))
    attempt('write ' + path, lambda: open(path, 'wb'))
    attempt('truncate ' + path, lambda: os.truncate(path, 0))
    attempt('link ' + path, lambda: os.link(path, 'mine'))
    attempt('remove ' + path, lambda: os.remove(path))
if os.readlink('/proc/self') != '{pid}':  # containers of their own may number their processes alike
    attempt('read below', lambda: open('/proc/{pid}/cwd/diary.txt').read())
    attempt('write below', lambda: open('/proc/{pid}/cwd/diary.txt', 'w'))
    for link in ('cwd', 'exe', 'root', 'fd/0', 'fd/3'):
        attempt('readlink ' + link, lambda: os.readlink('/proc/{pid}/' + link))
attempt('kill', lambda: os.kill({pid}, signal.SIGKILL))
attempt('priority', lambda: os.setpriority(os.PRIO_PROCESS, {pid}, 19))
attempt('everyone', lambda: os.setpriority(os.PRIO_USER, 0, 19))
attempt('group', lambda: os.killpg(2, signal.SIGKILL))
for number in range(2, 64):
    if number != os.getpid():
        attempt('kill ' + str(number), lambda: os.kill(number, signal.SIGKILL))
print('done')
"""
    assert attacker.run(code).text == "done\n"


def test_names_of_another_episodes_files_cannot_be_tested(attacker: Episode, neighbour: Episode) -> None:
    slot = Path(neighbour.run("import os; print(os.getcwd())").text.strip()).parent
    code = f"import os; print([n for n in ('.', 'diary.txt', '*/diary.txt') if os.path.isfile('{slot}/' + n)])"
    assert attacker.run(code).text == "[]\n"
    assert attacker.run(f"import glob; print(glob.glob('{slot}/*'))").text == "[]\n"


def test_killing_everything_in_sight_hurts_nobody(attacker: Episode) -> None:
    code = """
import os, signal
for pid in (1, -1, 0, os.getppid()):
    for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGINT):
        try:
            os.kill(pid, number)
        except (OSError, KeyboardInterrupt):
            pass
"""
    attacker.run("x = 'alive'")
    assert attacker.run(code).error is None
    assert attacker.run("x").text == "'alive'\n"


DOORS = {  # name: number on x86_64, arguments
    "ptrace": (101, (16, 1, 0, 0)),
    "process_vm_readv": (310, (1, 0, 0, 0, 0, 0)),
    "unshare": (272, (0x10000000,)),
    "unshare (network)": (272, (0x40000000,)),
    "setns": (308, (0, 0)),
    "mount": (165, (0, 0, 0, 0, 0)),
    "umount2": (166, (0, 0)),
    "pivot_root": (155, (0, 0)),
    "chroot": (161, (0,)),
    "bpf": (321, (0, 0, 0)),
    "perf_event_open": (298, (0, 0, 0, 0, 0)),
    "userfaultfd": (323, (0,)),
    "io_uring_setup": (425, (8, 0)),
    "keyctl": (250, (0, 0)),
    "add_key": (248, (0, 0, 0, 0, 0)),
    "memfd_create": (319, (0, 0)),
    "shmget": (29, (0, 4096, 0o1600)),
    "mq_open": (240, (0, 0)),
    "open_by_handle_at": (304, (0, 0, 0)),
    "pidfd_open": (434, (1, 0)),
    "init_module": (175, (0, 0, 0)),
    "kexec_load": (246, (0, 0, 0, 0)),
    "reboot": (169, (0, 0, 0, 0)),
    "swapon": (167, (0, 0)),
    "sethostname": (170, (0, 0)),
    "clock_settime": (227, (0, 0)),
    "personality": (135, (0x0040000,)),
    "modify_ldt": (154, (0, 0, 0)),
    "iopl": (172, (3,)),
    "setuid": (105, (0,)),
    "capset": (126, (0, 0)),
    "mknod": (133, (0, 0o60666, 0)),
    "quotactl": (179, (0, 0, 0, 0)),
    "fanotify_init": (300, (0, 0)),
    "acct": (163, (0,)),
    "clone3": (435, (0, 0)),
}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of system calls are those of x86_64")
def test_the_kernels_back_doors_are_closed(attacker: Episode) -> None:
    code = f"""
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
for name, (number, arguments) in {DOORS!r}.items():
    result = libc.syscall(number, *map(ctypes.c_long, arguments))
    print(name, result, errno.errorcode.get(ctypes.get_errno()))
"""
    outcomes = dict(line.split(" ", 1) for line in attacker.run(code).text.replace(" (network)", "").splitlines())
    assert outcomes.keys() == {name.partition(" ")[0] for name in DOORS}
    assert set(outcomes.values()) <= {"-1 EPERM", "-1 ENOSYS"}, outcomes


@pytest.mark.skipif(platform.machine() != "x86_64", reason="machine code of x86_64")
def test_calls_of_another_architecture_end_the_runtime(attacker: Episode) -> None:
    # mov eax, 20; int 0x80; ret: getpid of the 32-bit table, which a filter for 64 bits does not look at.
    code = r"""
import ctypes, mmap
page = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(b'\xb8\x14\x00\x00\x00\xcd\x80\xc3')
print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))())
"""
    result = attacker.run(code)
    assert result.state_lost
    assert result.error is not None
    assert result.error.startswith("RuntimeLost: the Python runtime ended (killed by SIG")


def test_open_descriptors_are_those_an_episode_needs(sandbox: Sandbox, tmp_path: Path) -> None:
    video = tmp_path / "clip.mp4"
    video.write_bytes(clip().data or b"")
    code = """
import os, stat
for fd in range(256):
    try:
        status = os.fstat(fd)
    except OSError:
        continue
    kind = {stat.S_IFSOCK: 'socket', stat.S_IFREG: 'file', stat.S_IFIFO: 'pipe', stat.S_IFCHR: 'device',
            stat.S_IFDIR: 'folder'}[stat.S_IFMT(status.st_mode)]
    print(fd, kind, os.readlink(f'/proc/self/fd/{fd}').split('/')[-1])
"""
    with sandbox.open(videos=[video], images=[]) as attacker:
        lines = [line.split(" ", 2) for line in attacker.run(code).text.splitlines()]
    found = sorted((kind, target.split(" ")[0].split(":")[0]) for _, kind, target in lines)
    # The video is a memory file: a name, let alone a path of the machine, might hold the label.
    expected = [("device", "null"), ("socket", "socket"), ("file", "memfd")]
    if sandbox.kind != "docker-strict":  # there only a video that is opened again gets a decoder
        expected += [("socket", "socket"), ("file", "memfd")]  # to the decoder, and its sealed frames
    expected += [("file", ".output")] * 3  # standard output, error, and the spool they lead to
    expected += [("file", name) for name in ("limits", "maps", "stat", "statm", "status")] + [("folder", "fd")]
    assert found == sorted(expected)


@pytest.mark.parametrize("copied", [True, False], ids=["copied", "as itself"])
def test_the_read_only_video_stays_read_only(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, copied: bool) -> None:
    if not copied:
        monkeypatch.setattr(videos, "LARGEST_COPY", 0)
    # World-writable and in a folder anybody may enter: only the sandbox can keep the code from writing.
    path = Path("/var/tmp") / f"clip-{os.getpid()}.mp4"
    data = clip().data or b""
    path.write_bytes(data)
    path.chmod(0o666)
    before = path.stat()
    code = """
import fcntl, mmap, os, shutil, stat
fd = next(n for n in range(3, 256) if n in OPEN and any(w in os.readlink(f'/proc/self/fd/{n}') for w in NAMES))
def attempt(what, use):
    try:
        print('WORKED', what, use())
    except (OSError, ValueError):
        pass
attempt('write', lambda: os.write(fd, b'x'))
attempt('pwrite', lambda: os.pwrite(fd, b'x', 0))
attempt('truncate', lambda: os.ftruncate(fd, 0))
attempt('reopen', lambda: os.write(os.open(f'/proc/self/fd/{fd}', os.O_RDWR), b'x'))
attempt('reopen to map', lambda: mmap.mmap(os.open(f'/proc/self/fd/{fd}', os.O_RDWR), 4096))
if not COPIED:  # the copy is sealed, and opening it anew gives nothing that can be written
    attempt('reopen to read', lambda: os.open(f'/proc/self/fd/{fd}', os.O_RDONLY))
attempt('truncate path', lambda: os.truncate(f'/proc/self/fd/{fd}', 0))
attempt('map', lambda: mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_WRITE))
attempt('link', lambda: os.link(f'/proc/self/fd/{fd}', 'mine', follow_symlinks=True))
attempt('punch', lambda: os.posix_fallocate(fd, 0, 1 << 20))
attempt('folder', lambda: os.listdir(os.path.dirname(os.readlink(f'/proc/self/fd/{fd}'))))
attempt('lease', lambda: fcntl.fcntl(fd, 1024, fcntl.F_RDLCK))
os.fchmod(fd, 0o600); os.fchown(fd, 0, 0); os.utime(fd, (0, 0))
print('done')
""".replace("n in OPEN", "os.path.lexists(f'/proc/self/fd/{n}')").replace("COPIED", str(copied))
    code = code.replace("NAMES", "('.mp4', '/memfd:')")
    try:
        with sandbox.open(videos=[path]) as attacker:
            assert attacker.run(code, timeout=20).text == "done\n"
            assert attacker.run("len(video_clue_0)").text == "20\n"
        after = path.stat()
        assert path.read_bytes() == data
        assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)
    finally:
        path.unlink()


def test_shared_pixels_cannot_be_changed_for_others(attacker: Episode, neighbour: Episode) -> None:
    code = """
import ctypes, mmap, os
image_clue_0.paste((1, 2, 3), (0, 0, 80, 60))
a = np.asarray(image_clue_0)
try:
    a[:] = 0
except ValueError:
    pass
for line in open('/proc/self/maps'):
    if 'memfd' in line:
        start, end = (int(x, 16) for x in line.split()[0].split('-'))
        ctypes.memset(start, 7, end - start)
print('done')
"""
    assert attacker.run(code).text == "done\n"
    assert neighbour.run("image_clue_0.getpixel((3, 3))").text == "(128, 128, 128)\n"


def test_two_attackers_cannot_talk_to_each_other(sandbox: Sandbox) -> None:
    send = """
import os
for path in ('/tmp/x', '/dev/shm/x', '/s/x', '/var/tmp/x'):
    try:
        open(path, 'w').write('hello')
    except OSError:
        pass
try:
    os.mkfifo('/tmp/fifo')
except OSError:
    pass
print(os.getcwd())
"""
    left = "print([p for p in ('/tmp/x', '/dev/shm/x', '/s/x', '/var/tmp/x', '/tmp/fifo') if os.path.exists(p)])"
    with sandbox.open() as one, sandbox.open() as two:
        assert one.run(send).text != two.run("import os; print(os.getcwd())").text
        assert two.run(left).text == "[]\n"
