"""Network namespaces: made, entered, configured and removed.

A thread may enter a namespace for the length of a ``with`` block; a socket that it creates there belongs to that
namespace for ever and can be used from anywhere.  Nothing may be awaited inside the block.
(Source: namespaces(7), network_namespaces(7), setns(2).)
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rehearsal.interfaces import Outcome, RehearsalError

FOLDER = Path("/run/netns")  # where iproute2 looks names up

_CLONE_NEWNET = 0x40000000
_MS_REC = 0x4000
_MS_BIND = 0x1000
_MS_PRIVATE = 0x40000
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)

# A router of the rehearsal never sends redirects (VPC routers do not), never filters by reverse path and speaks IPv4.
_COMMON_SYSCTLS = {
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
}


class NetworkError(RehearsalError):
    """``ip`` or ``nft`` refused a command."""


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: Path, kind: str, *, flags: int = 0, data: str = "") -> None:
    """Mount a file system in the mount namespace of this process. OSError when the kernel refuses (mount(2))."""
    result = _libc.mount(source.encode(), str(target).encode(), kind.encode(), flags, data.encode() or None)
    _check(result, f"mount {target}")


def bind(source: Path, target: Path) -> None:
    """Show ``source`` at ``target`` in the mount namespace of this process. OSError when the kernel refuses."""
    mount(str(source), target, "none", flags=_MS_BIND)


def unmount(target: Path) -> None:
    """Take the mount at ``target`` away, also when it is still in use. OSError when there is none (umount2(2))."""
    _check(_libc.umount2(str(target).encode(), _MNT_DETACH), f"unmount {target}")


def own_namespaces() -> None:
    """Prepare a process that was started by ``unshare --mount``: its mounts and its list of namespaces are its own.

    Mounts made from here on are invisible outside and vanish with the last process inside.
    """
    mount("none", Path("/"), "none", flags=_MS_REC | _MS_PRIVATE)
    FOLDER.mkdir(parents=True, exist_ok=True)
    mount("rehearsal", FOLDER, "tmpfs", data="mode=0755")


def path(name: str) -> Path:
    """The file that names the namespace ``name``."""
    return FOLDER / name


@contextlib.contextmanager
def entered(name: str) -> Iterator[None]:
    """Run the block inside the namespace ``name``; await nothing in it. OSError when the namespace does not exist."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        target = os.open(path(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(target, _CLONE_NEWNET), f"enter network namespace {name}")
        finally:
            os.close(target)
        try:
            yield
        finally:
            _check(_libc.setns(own, _CLONE_NEWNET), "return from a network namespace")
    finally:
        os.close(own)


def enter_for_good(namespace: Path) -> None:
    """Move this process (while it has one thread) into a namespace. OSError when it is gone or not permitted."""
    target = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(target, _CLONE_NEWNET), f"enter {namespace}")
    finally:
        os.close(target)


def create(name: str, *, forwarding: bool = False) -> None:
    """Make the namespace ``name``: nothing in it but ``lo`` (still down), IPv4 only, no redirects, no path filter."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        target = path(name)
        target.touch(exist_ok=False)
        _check(_libc.unshare(_CLONE_NEWNET), f"make network namespace {name}")
        try:
            mount("/proc/thread-self/ns/net", target, "none", flags=_MS_BIND)
            _write_sysctls({**_COMMON_SYSCTLS, "net/ipv4/ip_forward": "1" if forwarding else "0"})
        finally:
            _check(_libc.setns(own, _CLONE_NEWNET), "return from a network namespace")
    finally:
        os.close(own)


def exists(name: str) -> bool:
    """Whether the namespace ``name`` was made and not yet removed."""
    return path(name).exists()


def remove(name: str) -> None:
    """Kill what runs in the namespace ``name`` and take it away with its links; nothing happens when it is gone."""
    if not exists(name):
        return
    kill_processes(name)
    unmount(path(name))
    path(name).unlink()


def processes(name: str) -> list[int]:
    """The ids of the processes whose network is the namespace ``name`` (as ``ip netns pids``)."""
    return inhabitants(path(name).stat())


def inhabitants(wanted: os.stat_result) -> list[int]:
    """The ids of the processes whose network is the namespace whose file is ``wanted``, also when the file is gone."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile
            there = (entry / "ns/net").stat()
            if (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino):
                found.append(int(entry.name))
    return found


def kill_processes(name: str) -> None:
    """Kill every process whose network is the namespace ``name``."""
    for pid in processes(name):
        if pid != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _write_sysctls(values: Mapping[str, str]) -> None:
    for key, value in values.items():
        # /proc/sys/net shows the namespace of the thread that opens it
        setting = Path("/proc/sys") / key
        if key.startswith("net/ipv6/") and not setting.exists():
            continue  # a kernel without IPv6 needs no switch for it
        setting.write_text(value)


def set_sysctls(name: str, values: Mapping[str, str]) -> None:
    """Write kernel settings (``net/ipv4/ip_forward`` -> ``1``) inside the namespace ``name``."""
    with entered(name):
        _write_sysctls(values)


def listening_socket(name: str, address: str, port: int, *, backlog: int = 128) -> socket.socket:
    """A non-blocking TCP socket that listens inside the namespace. OSError when address or port is not free there."""
    with entered(name):
        created = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        created.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        created.bind((address, port))
        created.listen(backlog)
        created.setblocking(False)
    except OSError:
        created.close()
        raise
    return created


def datagram_socket(name: str, address: str, port: int) -> socket.socket:
    """A non-blocking UDP socket inside the namespace. OSError when address or port is not free there."""
    with entered(name):
        created = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        created.bind((address, port))
        created.setblocking(False)
    except OSError:
        created.close()
        raise
    return created


def client_socket(name: str) -> socket.socket:
    """A non-blocking, unconnected TCP socket that belongs to the namespace."""
    with entered(name):
        created = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    created.setblocking(False)
    return created


async def open_connection(
    name: str, address: str, port: int, *, timeout: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect from inside the namespace within ``timeout`` seconds. OSError or TimeoutError otherwise."""
    created = client_socket(name)
    try:
        async with asyncio.timeout(timeout):
            await asyncio.get_running_loop().sock_connect(created, (address, port))
            return await asyncio.open_connection(sock=created)
    except BaseException:
        created.close()
        raise


def inside(name: str, argv: Sequence[str]) -> list[str]:
    """The command line that runs ``argv`` inside the namespace."""
    # by its full path: the program is looked up before the command's own environment applies, which may have no PATH
    nsenter = shutil.which("nsenter", path=os.environ.get("PATH", os.defpath) + ":/usr/bin:/bin")
    if nsenter is None:
        raise RehearsalError("nsenter not found; install with: sudo apt-get install util-linux")
    return [nsenter, f"--net={path(name)}", "--", *argv]


async def run(argv: Sequence[str], *, stdin: str = "") -> Outcome:
    """Run a program of the system to its end. FileNotFoundError when it is not installed."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        stdout, stderr = await process.communicate(stdin.encode())
    finally:
        if process.returncode is None:  # the caller was cancelled
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Outcome(process.returncode, stdout, stderr)


async def _must(argv: Sequence[str], stdin: str, what: str) -> bytes:
    outcome = await run(argv, stdin=stdin)
    if outcome.rc != 0:
        raise NetworkError(f"{what} failed: {outcome.stderr.decode(errors='replace').strip()}\n{stdin}")
    return outcome.stdout


async def ip(lines: Iterable[str], *, namespace: str | None = None) -> None:
    """Run lines of ``ip`` in one process, in order, up to the first that fails. NetworkError names the line."""
    text = "".join(f"{line}\n" for line in lines)
    if text:
        where = ["-n", namespace] if namespace else []
        await _must(["ip", *where, "-batch", "-"], text, f"ip in {namespace or 'no namespace'}")


async def nft(namespace: str, ruleset: str) -> None:
    """Apply a ruleset as one transaction: all of it or, with a NetworkError, nothing."""
    await _must(inside(namespace, ["nft", "-f", "-"]), ruleset, f"nft in {namespace}")


async def nft_json(namespace: str, *arguments: str) -> bytes:
    """What ``nft -j`` prints inside the namespace."""
    return await _must(inside(namespace, ["nft", "-j", *arguments]), "", f"nft in {namespace}")
