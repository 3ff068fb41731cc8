"""One machine: a namespace with one network card, the processes in it, a serial port, and the host that runs on it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal, Protocol

from rehearsal.interfaces import InstanceView, Nic, Outcome, RehearsalError, StreamHandler
from rehearsal.network import netns

PowerAction = Literal["shutdown", "reboot"]

#: Debian's datefudge; the loader puts the architecture's folder in the place of $LIB.
_OTHER_CLOCK = "/usr/$LIB/datefudge/datefudge.so"


def with_clock(env: Mapping[str, str], ahead: int) -> dict[str, str]:
    """``env`` for a process, and those that it starts, whose wall clock is ``ahead`` seconds ahead (behind: below 0).

    The C library's calls for the date are replaced, so OpenSSL sees it as well; monotonic clocks stay (datefudge(1)).
    """
    return {**env, "LD_PRELOAD": _OTHER_CLOCK, "DATEFUDGE": str(-ahead)} if ahead else dict(env)


class MachineState(StrEnum):
    """What a machine is doing, which is not always what EC2 says of the instance."""

    OFF = "off"
    BOOTING = "booting"
    RUNNING = "running"
    STOPPING = "stopping"
    FAILED = "failed"  # the boot ended with an error
    DEAD = "dead"  # power was cut


class Host(Protocol):
    """The operating system of a machine, as the hypervisor uses it."""

    @property
    def computer_name(self) -> str: ...
    @property
    def winrm_commands(self) -> int:
        """How many commands came over WinRM since the host was made."""

    def hang_renders(self) -> int:
        """Let the programs that render now hang; how many that are."""

    async def power_on(self) -> None: ...
    async def booted(self) -> None:
        """Wait until what starts with the machine has done its first work."""

    async def power_off(self) -> None:
        """Everything of the host ends at once; its disk is complete afterwards."""


class MachinePlatform:
    """What a host sees of its machine (``rehearsal.interfaces.Platform``)."""

    def __init__(
        self,
        name: str,
        namespace: str,
        card: Nic,
        *,
        key_name: str | None,
        on_serial: Callable[[bytes], None],
        on_power: Callable[[PowerAction], None],
        on_password: Callable[[str], None],
        clock_ahead: int = 0,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """``env`` is what its processes find in their environment beside what they are given."""
        self.name = name
        self.namespace = namespace
        self.nic = card
        self._key_name = key_name
        self._clock_ahead = clock_ahead
        self._env = dict(env or {})
        self._on_serial = on_serial
        self._on_power = on_power
        self._on_password = on_password
        self._servers: list[asyncio.AbstractServer] = []

    @property
    def key_name(self) -> str | None:
        """The key pair that the instance was launched with; None for machines outside EC2."""
        return self._key_name

    async def listen(
        self, port: int, serve: StreamHandler, *, address: str = "0.0.0.0", tls: ssl.SSLContext | None = None
    ) -> asyncio.AbstractServer:
        """Serve a TCP port of the machine. OSError when it is taken."""
        listener = netns.listening_socket(self.namespace, address, port)
        server = await asyncio.start_server(serve, sock=listener, ssl=tls)
        self._servers = [known for known in self._servers if known.is_serving()] + [server]
        return server

    async def connect(
        self, address: str, port: int, *, timeout: float = 10.0
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a TCP connection from inside the machine. OSError and TimeoutError pass through."""
        return await netns.open_connection(self.namespace, address, port, timeout=timeout)

    async def spawn(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdin: bytes = b"", timeout: float = 3600.0
    ) -> Outcome:
        """Run a real program inside the machine's network to its end.

        TimeoutError when it takes longer than ``timeout`` seconds; it is killed then, as it is when the caller is
        cancelled or the machine loses power.
        """
        process = await asyncio.create_subprocess_exec(
            *netns.inside(self.namespace, argv),
            env=with_clock({**env, **self._env}, self._clock_ahead),
            cwd=cwd,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(timeout):
                stdout, stderr = await process.communicate(stdin)
        except TimeoutError:
            raise TimeoutError(f"{argv[0]} did not end within {timeout:g} s") from None
        finally:
            if process.returncode is None:
                _kill_group(process.pid)
                await process.wait()
        assert process.returncode is not None
        return Outcome(process.returncode, stdout, stderr)

    async def daemon(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path
    ) -> asyncio.subprocess.Process:
        """Start a real program inside the machine's network; what it prints is added to ``log``."""
        with log.open("ab") as stream:
            return await asyncio.create_subprocess_exec(
                *netns.inside(self.namespace, argv),
                env=with_clock({**env, **self._env}, self._clock_ahead),
                cwd=cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    async def ip(self, *arguments: str) -> Outcome:
        """``ip`` of iproute2 inside the machine's network."""
        return await netns.run(["ip", "-n", self.namespace, *arguments])

    async def forwarding(self, enabled: bool) -> None:
        """Switch IPv4 forwarding of the machine on or off (Windows: ``IPEnableRouter``); it is off at each boot."""
        netns.set_sysctls(self.namespace, {"net/ipv4/ip_forward": "1" if enabled else "0"})

    async def firewall(self, ruleset: str) -> None:
        """Replace the table ``inet host`` by ``ruleset``, as one transaction. NetworkError when nft refuses it."""
        if not ruleset.lstrip().startswith("table inet host"):
            raise RehearsalError(f"{self.name}: a guest's firewall is the table inet host, not:\n{ruleset}")
        await netns.nft(self.namespace, f"table inet host\ndelete table inet host\n{ruleset}")

    def serial(self, data: bytes) -> None:
        """Write to COM1."""
        self._on_serial(data)

    def power(self, action: PowerAction) -> None:
        """Ask for shutdown or reboot; it happens shortly afterwards."""
        self._on_power(action)

    def set_password(self, password: str) -> None:
        """Publish the Administrator password that EC2Launch generated."""
        self._on_password(password)

    async def close(self) -> None:
        """Close the ports that are still open."""
        for server in self._servers:
            server.close()
        self._servers.clear()


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


class Machine:
    """What the hypervisor knows of one machine, from its first boot until its instance is gone."""

    def __init__(self, name: str, namespace: str, folder: Path, *, instance: InstanceView | None = None) -> None:
        self.name = name
        self.namespace = namespace
        self.folder = folder
        self.instance = instance
        self.state = MachineState.OFF
        self.error = ""
        self.boots_seen: int | None = None
        self.requested: PowerAction | None = None
        self.card: Nic | None = None
        self.platform: MachinePlatform | None = None
        self.host: Host | None = None
        self.task: asyncio.Task[None] | None = None
        self.faults: set[str] = set()
        self.clock_ahead = 0
        """Seconds by which its processes see another time than it is, from the next boot on."""
        self.power_cut = ""
        """Phase of its next boot in which its power goes."""
        self.rebalance: float | None = None
        """When EC2 advised to leave it (epoch seconds)."""
        self.winrm_commands = 0
        self.metadata: asyncio.AbstractServer | None = None
        self.resolver: asyncio.DatagramTransport | None = None

    @property
    def key(self) -> str:
        """Its instance id, or its name in the studio."""
        return self.instance.instance_id if self.instance else self.name

    @property
    def busy(self) -> bool:
        """Whether something is under way with it that must end first."""
        return self.task is not None and not self.task.done()

    @property
    def disk(self) -> Path:
        """The folder that stands for its drive C:."""
        return self.folder / "c"

    @property
    def held_still(self) -> Path:
        """Exists when its boot stands still in the phase `power_cut`."""
        return self.folder / "power-cut"

    @property
    def commands(self) -> int:
        """Commands that came over WinRM since the machine was made."""
        return self.winrm_commands + (self.host.winrm_commands if self.host else 0)

    def log(self, text: str) -> None:
        """Add a line to ``machine.log``."""
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        with (self.folder / "machine.log").open("a", encoding="utf-8") as stream:
            stream.writelines(f"{stamp} {line}\n" for line in text.splitlines() or [""])

    def console(self, data: bytes) -> None:
        """Add to ``console.log``."""
        with (self.folder / "console.log").open("ab") as stream:
            stream.write(data)
