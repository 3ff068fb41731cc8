"""Windows services: what is registered, and the service control manager that runs it."""

from __future__ import annotations

import asyncio
import itertools
import ntpath
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rehearsal.interfaces import ServiceProgram
from rehearsal.windows import commandline
from rehearsal.windows.accounts import SERVICE_ACCOUNTS
from rehearsal.windows.errors import WindowsError
from rehearsal.windows.processes import NORMAL_PRIORITY_CLASS

if TYPE_CHECKING:
    from rehearsal.windows.host import WindowsHost

StartType = Literal["auto", "delayed", "demand", "disabled"]
State = Literal["stopped", "start_pending", "running", "stop_pending"]

# Programs of Windows itself whose services need nothing behind them: they only have a state.
_PART_OF_WINDOWS = frozenset({"svchost.exe", "spoolsv.exe", "lsass.exe", "services.exe", "ec2launch.exe"})


@dataclass
class Service:
    """What is registered of a service (key names as in the service control manager's own structures)."""

    name: str
    display_name: str
    path: str
    start: StartType = "demand"
    account: str = "LocalSystem"
    password: str = ""
    description: str = ""
    dependencies: list[str] = field(default_factory=list)
    type: str = "own"  # own or share
    interactive: bool = False
    error_control: str = "normal"
    load_order_group: str = ""
    failure_actions: list[list[Any]] = field(default_factory=list)  # [["restart", delay in milliseconds], …]
    failure_reset: int = 0  # seconds
    failure_command: str = ""
    failure_reboot_message: str = ""
    failure_on_non_crash: bool = False
    sid_info: str = "none"
    required_privileges: list[str] = field(default_factory=list)
    pre_shutdown_timeout: int = 180000  # milliseconds


@dataclass
class Running:
    """What changes while the machine runs; nothing of it survives a boot."""

    state: State = "stopped"
    process_id: int = 0
    priority: int = NORMAL_PRIORITY_CLASS
    """Priority class of that process."""
    exit_code: int = 1077  # ERROR_SERVICE_NEVER_STARTED
    task: asyncio.Task[None] | None = None
    failures: int = 0


class Services:
    """The service control manager.  Names are compared without regard to case; errors are WindowsError."""

    def __init__(self, host: WindowsHost, state: dict[str, Any], changed: Callable[[], None]) -> None:
        """``state``: service name -> what is registered, of the host's saved state."""
        self._host = host
        self._state = state
        self._changed = changed
        self._services = {name.lower(): Service(**service) for name, service in state.items()}
        self._running: dict[str, Running] = {}
        self._process_ids = itertools.count(1804, 4)
        self.programs: dict[str, ServiceProgram] = {}
        self.on_state: list[Callable[[str, State], None]] = []

    # ------------------------------------------------------------------------------------------------------ registered

    def names(self) -> list[str]:
        """Names of all services, sorted."""
        return sorted((service.name for service in self._services.values()), key=str.lower)

    def get(self, name: str) -> Service:
        """A service by its name; error 1060 when there is none."""
        try:
            return self._services[name.lower()]
        except KeyError:
            raise WindowsError(1060) from None

    def find(self, name: str) -> Service | None:
        """A service by its name or display name."""
        lowered = name.lower()
        return self._services.get(lowered) or next(
            (service for service in self._services.values() if service.display_name.lower() == lowered), None
        )

    def create(self, service: Service) -> Service:
        """Register a service; error 1073 when the name is taken, 1078 when the display name is."""
        if service.name.lower() in self._services:
            raise WindowsError(1073)
        if self.find(service.display_name) is not None:
            raise WindowsError(1078)
        self._services[service.name.lower()] = service
        self.save(service)
        return service

    def save(self, service: Service) -> None:
        """Keep what was changed of a service."""
        self._state[service.name] = asdict(service)
        self._changed()

    async def delete(self, name: str) -> None:
        """Remove a service (it is stopped first, as Windows does once its last handle is closed)."""
        service = self.get(name)
        if self.status(name).state == "running":
            await self.stop(name, force=True)
        del self._services[name.lower()]
        del self._state[service.name]
        self._running.pop(name.lower(), None)
        self._changed()

    def status(self, name: str) -> Running:
        """The state of a service; error 1060 when there is none."""
        self.get(name)
        return self._running.setdefault(name.lower(), Running())

    def dependents(self, name: str) -> list[Service]:
        """Services that need this one."""
        lowered = name.lower()
        return [
            service for service in self._services.values() if lowered in (need.lower() for need in service.dependencies)
        ]

    def check_account(self, account: str) -> str:
        """The account's name as it is kept; error 1057 when there is no such account."""
        try:
            sid = self._host.accounts.sid(account)
        except WindowsError:
            raise WindowsError(1057) from None
        return "LocalSystem" if sid == "S-1-5-18" else account

    # --------------------------------------------------------------------------------------------------------- running

    async def start(self, name: str) -> None:
        """Start a service and those that it needs.

        Errors: 1060 no such service, 1056 runs already, 1058 disabled, 1068 a dependency did not start, 1069 its
        account cannot log on, 2 or 3 its program does not exist, 1053 its program did not answer (also: the rehearsal
        has no program for it, which the machine's log says).
        """
        service = self.get(name)
        status = self.status(name)
        if status.state in ("running", "start_pending"):
            raise WindowsError(1056)
        if service.start == "disabled":
            raise WindowsError(1058)
        for need in service.dependencies:
            if self.find(need) is None:
                raise WindowsError(1075)
            if self.status(need).state != "running":
                try:
                    await self.start(need)
                except WindowsError as error:
                    self._host.log(f"service {name}: its dependency {need} did not start: {error}")
                    raise WindowsError(1068) from error
        self._check_logon(service)
        program = self._program(service)
        self._set_state(service, status, "start_pending")
        status.process_id = next(self._process_ids)
        status.priority = NORMAL_PRIORITY_CLASS
        if program is not None:
            status.task = asyncio.create_task(self._run(service, status, program), name=f"service {service.name}")
        self._set_state(service, status, "running")
        status.exit_code = 0
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if status.task is not None and status.task.done() and status.exit_code:
            raise WindowsError(1053 if status.exit_code == 1067 else status.exit_code)

    def _check_logon(self, service: Service) -> None:
        accounts = self._host.accounts
        try:
            sid = accounts.sid(service.account)
        except WindowsError as error:
            raise WindowsError(1069) from error
        if sid in SERVICE_ACCOUNTS:
            return
        if not accounts.check_password(service.account, service.password):
            raise WindowsError(1069)

    def binary(self, service: Service) -> str:
        """The path of a service's program, without its arguments."""
        path = commandline.expand(service.path, self._host.environment())
        words = commandline.split(path)
        if path.startswith('"') or not words:
            return words[0] if words else ""
        for count in range(1, len(words) + 1):  # an unquoted path with spaces: Windows tries word by word
            candidate = " ".join(path.split(" ")[:count])
            for name in (candidate, candidate + ".exe"):
                if self._host.files.is_file(name):
                    return name
        return words[0]

    def _program(self, service: Service) -> ServiceProgram | None:
        binary = self.binary(service)
        basename = ntpath.basename(binary).lower()
        if basename in _PART_OF_WINDOWS:
            return None
        if not self._host.files.is_file(binary):
            raise WindowsError(2 if self._host.files.is_directory(ntpath.dirname(binary)) else 3)
        program = self.programs.get(basename)
        if program is None:
            self._host.log(
                f"rehearsal: no stand-in for the program {binary} of service {service.name}; "
                f"register one in WindowsHost.service_programs under {basename!r}"
            )
            raise WindowsError(1053)
        return program

    async def _run(self, service: Service, status: Running, program: ServiceProgram) -> None:
        try:
            await program(self._host, service.name)
        except asyncio.CancelledError:
            status.exit_code = 0
            raise
        except WindowsError as error:
            self._host.log(f"service {service.name} ended with error {error.code}: {error}")
            status.exit_code = error.code
        except Exception as error:  # a stand-in that breaks is a service process that dies
            self._host.log(f"service {service.name} terminated unexpectedly: {type(error).__name__}: {error}")
            status.exit_code = 1067
        else:
            self._host.log(f"service {service.name} ended by itself")
            status.exit_code = 0
        self._set_state(service, status, "stopped")
        status.process_id = 0
        if status.exit_code == 1067 or (status.exit_code and service.failure_on_non_crash):
            self._recover(service, status)

    def _recover(self, service: Service, status: Running) -> None:
        if not service.failure_actions:
            return
        kind, delay = service.failure_actions[min(status.failures, len(service.failure_actions) - 1)]
        status.failures += 1
        if kind == "restart":
            self._host.later(float(delay) / 1000, lambda: self._restart_failed(service), f"recovery of {service.name}")
        elif kind != "none":
            self._host.log(f"rehearsal: failure action {kind} of service {service.name} is not carried out")

    async def _restart_failed(self, service: Service) -> None:
        if service.name.lower() not in self._services or self.status(service.name).state != "stopped":
            return
        try:
            await self.start(service.name)
        except WindowsError as error:
            self._host.log(f"service {service.name} was not restarted: {error}")

    async def stop(self, name: str, *, force: bool = False) -> None:
        """Stop a service. Errors: 1060, 1062 not running, 1051 others need it (``force`` stops those first)."""
        service = self.get(name)
        status = self.status(name)
        if status.state != "running":
            raise WindowsError(1062)
        for dependent in self.dependents(name):
            if self.status(dependent.name).state == "running":
                if not force:
                    raise WindowsError(1051)
                await self.stop(dependent.name, force=True)
        self._set_state(service, status, "stop_pending")
        task, status.task = status.task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._set_state(service, status, "stopped")
        status.process_id = 0
        status.exit_code = 0
        status.failures = 0

    async def start_automatic(self) -> None:
        """Start what starts with the machine: automatic services first, then those with a delayed start."""
        for kind in ("auto", "delayed"):
            for service in list(self._services.values()):
                if service.start == kind and self.status(service.name).state == "stopped":
                    try:
                        await self.start(service.name)
                    except WindowsError as error:
                        self._host.log(f"service {service.name} did not start: {error}")

    async def stop_all(self) -> None:
        """Power goes: every service ends."""
        tasks = [status.task for status in self._running.values() if status.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._running.clear()

    def _set_state(self, service: Service, status: Running, state: State) -> None:
        status.state = state
        if state in ("running", "stopped"):
            self._host.log(f"service {service.name} is {state}")
        for callback in self.on_state:
            callback(service.name, state)
