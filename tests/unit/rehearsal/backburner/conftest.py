"""Machines for the Backburner stand-ins: each has a folder as its C: and an own address on the loopback network."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import shutil
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from rehearsal.backburner.client import ManagerClient, manager_client
from rehearsal.backburner.host import write_file
from rehearsal.backburner.log import LOG_FILE
from rehearsal.backburner.manager import BackburnerManager
from rehearsal.backburner.server import BackburnerServer
from rehearsal.backburner.settings import SETTINGS_FILE, default_file
from rehearsal.interfaces import Nic, StreamHandler
from rehearsal.windows.files import Files

SCALE = 0.01

_networks = itertools.count(os.getpid() % 120 * 2 + 256)


class Platform:
    def __init__(self, nic: Nic) -> None:
        self.nic = nic
        self.name = nic.name
        self.namespace = ""

    async def listen(
        self, port: int, serve: StreamHandler, *, address: str = "0.0.0.0", tls: ssl.SSLContext | None = None
    ) -> asyncio.AbstractServer:
        return await asyncio.start_server(serve, str(self.nic.address), port, ssl=tls)

    async def connect(
        self, address: str, port: int, *, timeout: float = 10.0
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if address == "127.0.0.1":  # each machine has its own loopback; here they share one
            address = str(self.nic.address)
        async with asyncio.timeout(timeout):
            return await asyncio.open_connection(address, port, local_addr=(str(self.nic.address), 0))


class Cable(Platform):
    """A machine whose cable can be pulled: packets vanish both ways, and a connection that lost one never recovers."""

    def __init__(self, nic: Nic) -> None:
        super().__init__(nic)
        self.plugged = True
        self._pumps: set[asyncio.Task[None]] = set()

    async def listen(
        self, port: int, serve: StreamHandler, *, address: str = "0.0.0.0", tls: ssl.SSLContext | None = None
    ) -> asyncio.AbstractServer:
        async def plugged_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self.plugged:
                await serve(reader, writer)
            else:
                await reader.read()  # takes in what comes and says nothing
            writer.close()

        return await super().listen(port, plugged_only, address=address, tls=tls)

    async def connect(
        self, address: str, port: int, *, timeout: float = 10.0
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if not self.plugged:
            await asyncio.sleep(timeout)
            raise TimeoutError
        far_reader, far_writer = await super().connect(address, port, timeout=timeout)
        near, own = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=own)
        for pump in (self._pump(reader, far_writer), self._pump(far_reader, writer)):
            task = asyncio.create_task(pump)
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)
        return await asyncio.open_connection(sock=near)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while (data := await source.read(4096)) and self.plugged:
                target.write(data)
            if not self.plugged:
                await asyncio.Event().wait()  # neither end hears of the other again
        finally:
            target.close()


class Machine:
    """A host; ``processes`` lists what its task list would show."""

    def __init__(self, root: Path, address: IPv4Address, mac: str, computer_name: str) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.files = Files(root, {}, lambda: None)
        self.computer_name = computer_name
        self.platform = Platform(Nic("Ethernet", mac, address, IPv4Network(f"{address}/24", strict=False), None))
        self.messages: list[str] = []
        self.processes: list[str] = []
        self.services: dict[str, asyncio.Task[None]] = {}

    def log(self, text: str) -> None:
        self.messages.append(text)

    @contextmanager
    def show_processes(self, images: Sequence[str], service: str) -> Iterator[None]:
        self.processes.extend(images)
        try:
            yield
        finally:
            for image in images:
                self.processes.remove(image)

    @property
    def address(self) -> str:
        return str(self.platform.nic.address)

    @property
    def handle(self) -> str:
        return self.platform.nic.mac.replace(":", "").upper() + "0000"

    @property
    def settings(self) -> bytes:
        return self.files.read_bytes(SETTINGS_FILE)

    def backburner_log(self) -> str:
        return self.files.read_bytes(LOG_FILE).decode() if self.files.exists(LOG_FILE) else ""

    def edit(self, **elements: str) -> None:
        """Set elements of backburner.xml by name, as text."""
        text = self.settings.decode()
        for name, value in elements.items():
            text, count = re.subn(rf"(<{name}[^>]*>)[^<]*(</{name}>)", rf"\g<1>{value}\g<2>", text)
            assert count, name
        self.files.write_bytes(SETTINGS_FILE, text.encode())


class Farm:
    """Machines on one network, all in this event loop."""

    def __init__(self, folder: Path) -> None:
        number = next(_networks)
        self.folder = folder
        self.prefix = f"127.{number // 256 % 128 + 100}.{number % 256}"
        self.machines: list[Machine] = []
        self.scale = SCALE  # of the protocol's waits

    def machine(self, number: int, *, mac: str | None = None, name: str | None = None) -> Machine:
        address = IPv4Address(f"{self.prefix}.{number}")
        mac = mac or f"02:00:00:00:00:{number:02x}"
        made = Machine(self.folder / f"m{number}", address, mac, name or "ip-" + str(address).replace(".", "-"))
        self.machines.append(made)
        return made

    def clone(self, original: Machine, number: int) -> Machine:
        """A machine with the files of another and its own network card."""
        shutil.copytree(original.root, self.folder / f"m{number}")
        return self.machine(number)

    def node(self, number: int, manager: Machine) -> Machine:
        """A machine whose settings are right before its service starts."""
        made = self.machine(number)
        write_file(made.files, SETTINGS_FILE, default_file(made, "ServerSettings", "utf-8"))
        made.edit(ManagerName=manager.address)
        return made

    def cable(self, machine: Machine) -> Cable:
        """The machine's cable, to be pulled after its service started."""
        machine.platform = cable = Cable(machine.platform.nic)
        return cable

    def start_manager(self, machine: Machine) -> None:
        self._start(machine, "BACKBURNER_MGR_200", BackburnerManager(self.scale))

    def start_server(self, machine: Machine) -> None:
        self._start(machine, "BACKBURNER_SRV_200", BackburnerServer(self.scale))

    def _start(self, machine: Machine, service: str, program: Any) -> None:
        machine.services[service] = asyncio.create_task(program(machine, service))

    async def stop(self, machine: Machine) -> None:
        for task in machine.services.values():
            task.cancel()
        await asyncio.gather(*machine.services.values(), return_exceptions=True)
        machine.services.clear()

    async def stop_all(self) -> None:
        for machine in self.machines:
            await self.stop(machine)

    async def wait(self, condition: Callable[[], bool], seconds: float = 5.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.005)

    async def wait_for_line(self, machine: Machine, text: str, seconds: float = 5.0, count: int = 1) -> None:
        try:
            await self.wait(lambda: machine.backburner_log().count(text) >= count, seconds)
        except TimeoutError:
            raise AssertionError(f"{text!r} is not in the log:\n{machine.backburner_log()}") from None

    def client(self, machine: Machine) -> AbstractAsyncContextManager[ManagerClient]:
        return manager_client(machine.address)


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path)


@pytest.fixture
def play(farm: Farm) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Runs a test's coroutine and stops every service after it."""

    def run(story: Coroutine[Any, Any, None]) -> None:
        async def whole() -> None:
            try:
                await story
            finally:
                await farm.stop_all()

        asyncio.run(whole())

    return run
