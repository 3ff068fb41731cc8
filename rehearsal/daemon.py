"""The one process of a rehearsal: started by ``up`` in namespaces of its own, ended by ``down`` or a signal.

``unshare`` gives it a process namespace, a mount namespace and a network namespace without any link.  When its first
process ends, by whatever cause, the kernel ends every other and with them all mounts and namespaces: there is nothing
to clean up (pid_namespaces(7)).  That first process only waits; the second does the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml

from rehearsal import control, faults, parts, vpc_dns
from rehearsal.hypervisor import Hypervisor
from rehearsal.interfaces import RehearsalError
from rehearsal.machine import Machine, MachineState
from rehearsal.network import http, netns, plan
from rehearsal.network.topology import Network
from rehearsal.records import Records
from rehearsal.state import CALLS, LOG, Folder, write_atomically

log = logging.getLogger(__name__)

ENDPOINT = f"http://{plan.API_ADDRESS}:{plan.API_PORT}"
DOWNLOADS = f"http://{plan.DOWNLOADS_ADDRESS}/"
SECRETS = ("vault_ca_passphrase", "vault_workstation_password", "vault_share_password")
ROLE_TAG = "renderfarm:role"
_STATE_SECONDS = 1.0  # counters in state.json are at most this old
_FIRST_BOOT_SECONDS = 60.0
_END_SECONDS = 10.0  # an orderly end takes less; what hangs is cut off then


def main(folder: Folder, report: int, *, records: bool) -> int:
    """What ``python -m rehearsal serve`` does. Returns the exit code of the working process.

    :param records: render nodes are records (`rehearsal.records`).
    """
    folder.hold()
    worker = os.fork()
    if worker:
        os.close(report)
        return _wait_for(worker)
    connection = socket.socket(fileno=report)
    try:
        # the process table that is mounted here is still that of whoever started us
        own_id = int(Path("/proc/self").readlink().name)
        _furnish()
        logging.basicConfig(
            stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        asyncio.run(_serve(folder, own_id, connection, records))
    except OSError as error:
        log.exception("ended")
        _tell(connection, error=str(error))
    return _end(1)


def _end(code: int) -> NoReturn:
    """End at once: nothing that still runs is worth waiting for, and the kernel clears up."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)


def _wait_for(worker: int) -> int:
    """Pass signals on, reap orphans, end with the worker."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: os.kill(worker, received))
    while True:
        ended, result = os.wait()
        if ended == worker:
            return os.waitstatus_to_exitcode(result)


def _furnish() -> None:
    """Mount what only this rehearsal sees."""
    netns.own_namespaces()
    netns.mount("proc", Path("/proc"), "proc")
    parts.SOCKETS.mkdir(exist_ok=True)
    netns.mount("rehearsal", parts.SOCKETS, "tmpfs", data="mode=0700")
    settings = parts.SOCKETS / "resolv.conf"
    settings.write_text(vpc_dns.SETTINGS)
    netns.bind(settings, Path("/etc/resolv.conf"))


def _tell(connection: socket.socket, **report: Any) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        connection.sendall(json.dumps(report).encode() + b"\n")


async def _serve(folder: Folder, own_id: int, connection: socket.socket, records: bool) -> NoReturn:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def ask_to_stop() -> None:
        stop.set()
        loop.call_later(_END_SECONDS, _end, 1)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, ask_to_stop)
    daemon = Daemon(folder, own_id, ask_to_stop, records=records)

    def starter_is_gone() -> None:  # it never says anything: its end was closed
        loop.remove_reader(connection)
        if not daemon.ready:
            log.error("whoever started this rehearsal ended before it was up: ending too")
            _end(1)

    connection.setblocking(False)
    loop.add_reader(connection, starter_is_gone)
    try:
        await _until_stopped(daemon, stop, lambda **report: _tell(connection, **report))
    except (RehearsalError, OSError) as error:
        log.exception("ended")
        _tell(connection, error=str(error))
        _end(1)
    except BaseException as error:
        log.exception("ended")
        _tell(connection, error=f"{type(error).__name__}: {error} (see {folder.path / LOG})")
        _end(1)
    _end(0)


async def _until_stopped(daemon: Daemon, stop: asyncio.Event, tell: Callable[..., None]) -> None:
    async with daemon.running(lambda text: tell(progress=text)):
        if not stop.is_set():
            tell(ready={"endpoint": ENDPOINT, "region": daemon.region})
        await stop.wait()
        log.info("ending")


class Daemon:
    """All parts of one rehearsal, put together."""

    def __init__(self, folder: Folder, own_id: int, stop: Callable[[], None], *, records: bool) -> None:
        self.folder = folder
        self.own_id = own_id
        self.ready = False
        self.region = ""
        self._stop = stop
        self._started = time.time()
        self._network = Network()
        self._records = Records() if records else None
        self._hypervisor: Hypervisor | None = None
        self._context: faults.Context | None = None
        self._dirty = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self, tell: Callable[[str], None]) -> AsyncIterator[None]:
        """Everything is up inside the block. RehearsalError or OSError when a part cannot start."""
        async with contextlib.AsyncExitStack() as stack:
            self.folder.clear()
            with (self.folder.path / LOG).open("ab") as own_log:
                own_log.truncate(0)
            tell("network: studio, router, internet")
            await self._network.start()

            tell("AWS region")
            listener = netns.listening_socket(plan.INTERNET, str(plan.API_ADDRESS), plan.API_PORT)
            cloud = parts.start_cloud(listener, call_log=self.folder.path / CALLS)
            stack.callback(cloud.stop)
            self.region = cloud.settings.region

            tell("installers and settings")
            downloads = self.folder.path / "downloads"
            downloads.mkdir()
            installers = await asyncio.to_thread(parts.write_installers, downloads, DOWNLOADS)
            # Windows may want three kinds of characters; a token alone might lack one.
            passwords = {name: f"{secrets.token_urlsafe(18)}-Aa1" for name in SECRETS}
            write_inventory(self.folder, installers, passwords)
            await self._serve_downloads(stack, downloads)

            self._hypervisor = hypervisor = Hypervisor(
                self.folder.path,
                self._network,
                cloud,
                make_host=parts.make_host,
                make_server_image=parts.stock_server,
                changed=self._dirty.set,
                records=self._records,
            )
            self._context = faults.Context(hypervisor, cloud, self._background)
            stack.push_async_callback(self._cancel)
            self._spawn(hypervisor.run(), "hypervisor")
            stack.push_async_callback(hypervisor.close)

            tell("workstation")
            address = plan.LAN_HOSTS[plan.WORKSTATION]
            password = passwords["vault_workstation_password"]
            workstation = await asyncio.to_thread(
                hypervisor.studio_machine,
                plan.WORKSTATION,
                address,
                lambda target: parts.stock_workstation(target, address=address, password=password),
            )
            hypervisor.add(workstation)
            await _booted(workstation)
            pin_workstation(self.folder, workstation)

            await self._write_state()
            self._spawn(self._keep_state(), "state.json")
            server = await control.serve(self.folder.path, self._answer)
            stack.callback(server.close)
            self.ready = True
            yield
        self.folder.remove_state()

    async def _serve_downloads(self, stack: contextlib.AsyncExitStack, downloads: Path) -> None:
        listener = netns.listening_socket(plan.INTERNET, str(plan.DOWNLOADS_ADDRESS), plan.DOWNLOADS_PORT)
        server = await asyncio.start_server(http.serving(http.static_files(downloads)), sock=listener)
        stack.callback(server.close)

    def _spawn(self, work: Any, name: str) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("%s failed: the rehearsal ends", task.get_name(), exc_info=task.exception())
            self._stop()

    async def _cancel(self) -> None:
        tasks = list(self._background)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---------------------------------------------------------------------------------------------------------- state

    async def _keep_state(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STATE_SECONDS):
                    await self._dirty.wait()
            self._dirty.clear()
            await self._write_state()

    async def _write_state(self) -> None:
        self.folder.write_state(self.state())

    def state(self) -> dict[str, Any]:
        """What ``state.json`` holds."""
        assert self._hypervisor is not None
        return {
            "endpoint": ENDPOINT,
            "region": self.region,
            "started": self._started,
            "daemon_pid": self.own_id,
            "controller_namespace_path": f"/proc/{self.own_id}/root{netns.path(plan.CONTROLLER)}",
            "problem": self._hypervisor.problem,
            "machines": [describe(machine) for machine in self._hypervisor.machines.values()],
        }

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        match request:
            case {"do": "status"}:
                return {**self.state(), "leaks": await self._network.leaks()}
            case {"do": "inject", "fault": str(name), "arguments": list(arguments)}:
                assert self._context is not None
                text = await faults.inject(self._context, name, arguments)
                self._dirty.set()
                return {"text": text}
            case {"do": "stop"}:
                self._stop()
                return {}
        raise RehearsalError(f"the daemon does not know the request {request}; command and daemon differ in version")


def describe(machine: Machine) -> dict[str, Any]:
    """One machine in ``state.json``; times are seconds since 1970."""
    instance = machine.instance
    card = machine.card
    address = instance.interface.private_address if instance else (card.address if card else None)
    public = instance.interface.public_address if instance else None
    return {
        "name": machine.name,
        "instance_id": instance.instance_id if instance else None,
        "role": instance.tags.get(ROLE_TAG) if instance else machine.name,
        "type": instance.instance_type if instance else None,
        "lifecycle": instance.lifecycle if instance else None,
        "image_id": instance.image_id if instance else None,
        "computer_name": machine.host.computer_name if machine.host else None,
        "address": str(address) if address else None,
        "public_address": str(public) if public else None,
        "mac": instance.interface.mac if instance else (card.mac if card else None),
        "namespace": machine.namespace,
        "namespace_up": machine.state is MachineState.RUNNING,
        "c": str(machine.disk),
        "log": str(machine.folder / "machine.log"),
        "state": machine.state.value,
        "ec2_state": instance.state if instance else None,
        "error": machine.error,
        "faults": sorted(machine.faults),
        "launch_time": instance.launch_time if instance else None,
        "winrm": {"commands": machine.commands},
    }


async def _booted(machine: Machine) -> None:
    async with asyncio.timeout(_FIRST_BOOT_SECONDS):
        while machine.state not in (MachineState.RUNNING, MachineState.FAILED):
            await asyncio.sleep(0.02)
    if machine.state is MachineState.FAILED:
        raise RehearsalError(f"{machine.name} does not boot: {machine.error} (log: {machine.folder / 'machine.log'})")


def pin_workstation(folder: Folder, workstation: Machine) -> None:
    """Hand the workstation's own certificate to the controller, as the user does once at home."""
    target = folder.controller / "hosts" / plan.WORKSTATION
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(workstation.folder / "winrm.pem", target / "winrm.pem")


def write_inventory(folder: Folder, installers: Mapping[str, Any], passwords: Mapping[str, str]) -> None:
    """Write the inventory source that replaces the user's secrets and what lies outside by what the rehearsal has."""
    everyone = {
        "farm_installers": dict(installers),
        "farm_studio_endpoint": str(plan.STUDIO_PUBLIC_ADDRESS),
        **passwords,
    }
    workstation = {
        "ansible_host": str(plan.LAN_HOSTS[plan.WORKSTATION]),
        "farm_host_dir": str(folder.controller / "hosts" / plan.WORKSTATION),
    }
    _write_yaml(folder.inventory / "group_vars" / "all" / "rehearsal.yml", everyone)
    _write_yaml(folder.inventory / "group_vars" / "workstation" / "rehearsal.yml", workstation)
    _write_yaml(folder.inventory / "hosts.yml", {"all": {"children": {"workstation": None}}})


def _write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "---\n# Written by the rehearsal. Read after the user's inventory: replaces what the rehearsal simulates.\n"
    write_atomically(path, text + yaml.safe_dump(dict(values), sort_keys=False), mode=0o600)
