"""A Windows host: what it keeps on disk, what runs while it has power, and how it answers commands."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import ntpath
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from rehearsal.interfaces import Outcome, Platform, RehearsalError, Reply, Request, ServiceProgram
from rehearsal.windows import commandline, control, ec2launch, modules, network, powershell, programs, smb
from rehearsal.windows.accounts import Accounts
from rehearsal.windows.certificates import Certificates, StoredCertificate
from rehearsal.windows.errors import NoStandIn, WindowsError
from rehearsal.windows.files import Files
from rehearsal.windows.firewall import Firewall
from rehearsal.windows.processes import NORMAL_PRIORITY_CLASS, Processes, Running
from rehearsal.windows.registry import Registry
from rehearsal.windows.services import Services
from rehearsal.windows.services import State as ServiceState
from rehearsal.windows.state import State
from rehearsal.windows.tasks import Tasks
from rehearsal.winrm.server import Endpoint, serve_connection

SYSTEM = "SYSTEM"
FILE_SHARING = "lanmanserver"
ENVIRONMENT_KEY = r"HKLM\SYSTEM\CurrentControlSet\Control\Session Manager\Environment"
# The logon screen makes this key once a boot is complete; win_reboot of ansible.windows waits for it.
LOGON_KEY = r"HKLM\SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon\AutoLogonChecked"


class Listener(Protocol):
    """A WinRM listener: serves connections until it is told to cut them all."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None: ...
    def abort(self) -> None: ...


WinrmServer = Callable[["WindowsHost", StoredCertificate | None], Listener]
"""Makes a listener of a host; with a certificate it is one of HTTPS."""


class WinrmListener:
    """A listener that speaks WinRM as ``rehearsal.winrm`` does."""

    def __init__(self, host: WindowsHost, certificate: StoredCertificate | None) -> None:
        self.endpoint = Endpoint(
            host, tls=certificate is not None, certificate=certificate.der if certificate is not None else None
        )

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve_connection(reader, writer, self.endpoint)

    def abort(self) -> None:
        self.endpoint.abort()


class WindowsHost:
    """One Windows host.

    ``root`` holds ``c/`` (the drive C:), ``host.json`` (all else that survives a boot) and ``machine.log``.  Copying
    ``c/`` and ``host.json`` clones the machine.  ``platform`` gives it wires, processes and power.
    """

    def __init__(
        self,
        root: Path,
        platform: Platform,
        *,
        winrm: WinrmServer = WinrmListener,
        python: str = sys.executable,
    ) -> None:
        """``winrm`` makes the WinRM listeners, ``python`` is the real program that stands behind python.exe."""
        self.root = root
        self.platform = platform
        self.name = platform.name
        self.python = python
        self.winrm_commands = 0
        self._winrm = winrm
        self.state = State(root / "host.json")
        changed = self.state.changed
        self.files = Files(root / "c", self.state.part("attributes", {}), changed)
        self.registry = Registry(self.state.part("registry", {}), changed)
        self.accounts = Accounts(self.state.part("accounts", {}), lambda: self.computer_name, changed)
        self.firewall = Firewall(self.state.part("firewall", {}), changed)
        self.certificates = Certificates(self.state.part("certificates", {}), changed)
        self.services = Services(self, self.state.part("services", {}), changed)
        self.tasks = Tasks(self, self.state.part("tasks", {}), changed)
        self.winrm_settings: dict[str, Any] = self.state.part("winrm", {"listeners": [], "basic": False})
        """``listeners`` (Address, Transport, Port, Hostname, Enabled, CertificateThumbprint), ``basic``."""
        self.shares: dict[str, dict[str, Any]] = self.state.part("shares", {})
        """SMB shares by lower-case name."""
        self.access_rules: dict[str, list[dict[str, Any]]] = self.state.part("access_rules", {})
        """Access rules that were added to files, folders and registry keys, by lower-case path."""
        self.products: dict[str, dict[str, Any]] = self.state.part("products", {})
        """What Windows Installer installed: product code (upper case) -> what was in the package."""
        self.programs: dict[str, programs.Program] = dict(programs.TABLE)
        self.services.on_state.append(self._service_changed)
        self.processes = Processes(self.clock)
        self.network_files = smb.Client(self)
        """The way to the shares of other hosts."""
        self.boot_time = 0.0
        self.powered = False
        self.pending_shutdown: asyncio.Task[None] | None = None
        self.control_socket: Path | None = None
        self._control: asyncio.AbstractServer | None = None
        self._file_sharing: asyncio.AbstractServer | None = None
        self._listening: dict[tuple[int, str], tuple[asyncio.AbstractServer, Listener]] = {}
        self._listeners_lock = asyncio.Lock()
        self._background: set[asyncio.Task[Any]] = set()

    # ------------------------------------------------------------------------------------------------------ properties

    @property
    def service_programs(self) -> dict[str, ServiceProgram]:
        """Lower-case file name of a service's program -> what runs while the service does."""
        return self.services.programs

    @property
    def computer_name(self) -> str:
        """The NetBIOS name of the machine."""
        return str(self.state.values["computer_name"])

    @computer_name.setter
    def computer_name(self, name: str) -> None:
        self.state.values["computer_name"] = name
        self.state.changed()

    @property
    def edition(self) -> str:
        """``server`` or ``workstation``."""
        return str(self.state.values["edition"])

    def clock(self) -> float:
        """The host's time, seconds since 1970 UTC."""
        return time.time()

    def log(self, text: str) -> None:
        """Add a line to the machine's log (``machine.log``)."""
        stamp = datetime.fromtimestamp(self.clock(), UTC).isoformat(timespec="milliseconds")
        with (self.root / "machine.log").open("a", encoding="utf-8") as stream:
            stream.writelines(f"{stamp} {line}\n" for line in text.splitlines() or [""])

    def environment(self, user: str = SYSTEM) -> dict[str, str]:
        """The environment of a process of ``user``, as Windows has it (names in their usual spelling)."""
        system = user.upper() == SYSTEM
        profile = r"C:\Windows\System32\config\systemprofile" if system else f"C:\\Users\\{user}"
        temporary = r"C:\Windows\Temp" if system else profile + r"\AppData\Local\Temp"
        values = {
            "ALLUSERSPROFILE": r"C:\ProgramData",
            "APPDATA": profile + r"\AppData\Roaming",
            "CommonProgramFiles": r"C:\Program Files\Common Files",
            "COMPUTERNAME": self.computer_name,
            "ComSpec": r"C:\Windows\system32\cmd.exe",
            "LOCALAPPDATA": profile + r"\AppData\Local",
            "OS": "Windows_NT",
            "PATHEXT": ".COM;.EXE;.BAT;.CMD;.VBS;.VBE;.JS;.JSE;.WSF;.WSH;.MSC",
            "PROCESSOR_ARCHITECTURE": "AMD64",
            "ProgramData": r"C:\ProgramData",
            "ProgramFiles": r"C:\Program Files",
            "ProgramFiles(x86)": r"C:\Program Files (x86)",
            "ProgramW6432": r"C:\Program Files",
            "PUBLIC": r"C:\Users\Public",
            "SystemDrive": "C:",
            "SystemRoot": r"C:\Windows",
            "TEMP": temporary,
            "TMP": temporary,
            "USERDOMAIN": self.computer_name,
            "USERNAME": f"{self.computer_name}$" if system else user,
            "USERPROFILE": profile,
            "windir": r"C:\Windows",
        }
        for value in self.registry.values(ENVIRONMENT_KEY):
            values[value.name] = commandline.expand(str(value.data), values)
        return values

    def real_environment(self) -> dict[str, str]:
        """The environment of a real process that runs as if it were on this host (paths of the rehearsal's machine)."""
        drive = self.files.root
        if self.control_socket is None:
            raise RehearsalError(
                f"{self.name}: no control socket is served; call serve_control before running programs"
            )
        temporary = drive / "Windows" / "Temp"
        return {
            "SystemDrive": str(drive),
            "SystemRoot": str(drive / "Windows"),
            "windir": str(drive / "Windows"),
            "ProgramData": str(drive / "ProgramData"),
            "ProgramFiles": str(drive / "Program Files"),
            "ProgramFiles(x86)": str(drive / "Program Files (x86)"),
            "COMPUTERNAME": self.computer_name,
            "TEMP": str(temporary),
            "TMP": str(temporary),
            "PATH": str(drive / "Windows" / "System32"),
            "REHEARSAL_SOCKET": str(self.control_socket),
        }

    # ---------------------------------------------------------------------------------------------------------- power

    async def power_on(self) -> None:
        """Boot: firewall, persistent routes, automatic services, then startup tasks and EC2Launch side by side."""
        if self.powered:
            raise RehearsalError(f"{self.name} has power already")
        self.powered = True
        self.boot_time = self.clock()
        self.pending_shutdown = None
        self.log(f"power on: {self.platform.nic.address} {self.platform.nic.mac}")
        if self.state.values.get("generalized"):
            self._specialize()
        await self.apply_firewall()
        await network.restore_persistent_routes(self)
        await network.apply_forwarding(self)
        self.network_files.power_on()
        await self.services.start_automatic()
        await self.update_listeners()
        self.registry.create(LOGON_KEY)
        self.tasks.start_at_boot()
        if ec2launch.installed(self):
            self.later(0, lambda: ec2launch.run(self), "EC2Launch")

    async def booted(self) -> None:
        """Wait until each task that starts with the machine has ended the first of its actions."""
        await self.tasks.booted.wait()

    async def power_off(self) -> None:
        """Power goes at once: services, tasks and listeners end, what was changed is on disk."""
        self.powered = False
        for server, listener in self._listening.values():
            server.close()
            listener.abort()
        self._listening.clear()
        current = asyncio.current_task()
        tasks = [task for task in self._background if task is not current]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.services.stop_all()
        self.processes.power_off()
        if self._file_sharing is not None:
            self._file_sharing.close()
            self._file_sharing = None
        self.pending_shutdown = None
        if self._control is not None:
            self._control.close()
            self._control = None
        if self.control_socket is not None:
            self.control_socket.unlink(missing_ok=True)
            self.control_socket = None
        self.state.save()
        self.log("power off")

    def _specialize(self) -> None:
        """The specialize pass of Windows set-up after Sysprep: a new name and a new machine identifier."""
        digest = hashlib.sha256(self.platform.nic.mac.encode()).digest()
        self.computer_name = "EC2AMAZ-" + base64.b32encode(digest).decode()[:7]
        self.accounts.renew_machine_sid()
        self.state.values["generalized"] = False
        self.state.changed()
        self.log(f"specialize: computer name {self.computer_name}")

    def later(self, delay: float, work: Callable[[], Awaitable[Any]], name: str) -> asyncio.Task[None]:
        """Run ``work`` in ``delay`` seconds unless power goes before; an error of it goes to the machine's log."""

        async def run() -> None:
            if delay > 0:
                await asyncio.sleep(delay)
            try:
                await work()
            except Exception as error:
                self.log(f"{name}: {type(error).__name__}: {error}")

        task = asyncio.create_task(run(), name=f"{self.name}: {name}")
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def show_processes(self, images: Sequence[str], service: str) -> AbstractContextManager[Running]:
        """Show programs that ``service`` starts in the task list for as long as the context lasts."""
        priority = self.services.status(service).priority
        if priority != NORMAL_PRIORITY_CLASS:
            self.log(f"{' and '.join(images)} start with priority class 0x{priority:X}, which {service} hands on")
        return self.processes.shown(images, priority)

    async def apply_firewall(self) -> None:
        """Enforce the firewall's rules as they are now."""
        if self.powered:
            await self.platform.firewall(self.firewall.ruleset(self.platform.nic.network))

    # ---------------------------------------------------------------------------------------------------------- WinRM

    def winrm_users(self) -> Mapping[str, str]:
        """User name -> password of those who may log on over WinRM."""
        return self.accounts.remote_users()

    def winrm_basic_allowed(self) -> bool:
        """Whether the service takes basic authentication."""
        return bool(self.winrm_settings["basic"])

    def winrm_up(self) -> bool:
        """Whether the host has power and its WinRM service runs."""
        return self.powered and self.services.status("WinRM").state == "running"

    def _service_changed(self, name: str, state: ServiceState) -> None:
        if name.lower() == FILE_SHARING and state in ("running", "stopped") and self.powered:
            self.later(0, self.update_file_sharing, "file sharing")
        if name.lower() == "winrm" and state in ("running", "stopped") and self.powered:
            self.later(0, self.update_listeners, "WinRM listeners")

    async def update_file_sharing(self) -> None:
        """Keep the port of file sharing open while its service runs."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await smb.serve(self, reader, writer)

        wanted = self.powered and self.services.status(FILE_SHARING).state == "running"
        if wanted and self._file_sharing is None:
            self._file_sharing = await self.platform.listen(smb.PORT, answer)
        elif not wanted and self._file_sharing is not None:
            self._file_sharing.close()
            self._file_sharing = None

    async def update_listeners(self) -> None:
        """Open and close ports so that they are those of the listeners of a running WinRM service."""
        async with self._listeners_lock:
            wanted: dict[tuple[int, str], dict[str, Any]] = {}
            if self.powered and self.services.status("WinRM").state == "running":
                for listener in self.winrm_settings["listeners"]:
                    if listener["Enabled"]:
                        wanted[(listener["Port"], listener["CertificateThumbprint"])] = listener
            for key in [key for key in self._listening if key not in wanted]:
                self._listening.pop(key)[0].close()
                self.log(f"WinRM: port {key[0]} is closed")
            for key, settings in wanted.items():
                if key in self._listening:
                    continue
                port, thumbprint = key
                certificate = self.certificates.get(thumbprint)
                if settings["Transport"] == "HTTPS" and certificate is None:
                    self.log(f"WinRM: the certificate {thumbprint} of the HTTPS listener is not in the store")
                    continue
                tls = self.certificates.tls(thumbprint) if certificate is not None else None
                listener = self._winrm(self, certificate)
                self._listening[key] = (await self.platform.listen(port, listener.serve, tls=tls), listener)
                self.log(f"WinRM: port {port} is open ({settings['Transport']})")

    # ------------------------------------------------------------------------------------------------------- programs

    async def run(
        self,
        words: Sequence[str],
        *,
        cwd: str = "C:\\Windows\\System32",
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
        user: str = SYSTEM,
    ) -> Outcome:
        """Run a program with its arguments.

        WindowsError 2 when the program does not exist, 267 when the folder does not; NoStandIn when it exists and the
        rehearsal has nothing that acts for it.
        """
        if not self.files.is_directory(cwd):
            raise WindowsError(267)
        values = {**self.environment(user), **(environment or {})}
        path = self.find_program(words[0], cwd, values)
        program = self.programs.get(ntpath.basename(path).lower())
        if program is None:
            raise NoStandIn(
                f"the program {path}", "its call is known to nobody here; add it to rehearsal.windows.programs"
            )
        invocation = programs.Invocation(
            host=self, path=path, arguments=list(words[1:]), cwd=cwd, stdin=stdin, environment=values, user=user
        )
        return await program(invocation)

    def find_program(self, name: str, cwd: str, environment: Mapping[str, str]) -> str:
        """The path of an executable: as given, in ``cwd``, in Windows' folders, on PATH; else WindowsError 2."""
        names = [name] if ntpath.splitext(name)[1] else [name + ".exe", name]
        if "\\" in name or "/" in name:
            folders = [""] if ntpath.splitdrive(name)[0] else [cwd]
        else:
            path = next((value for key, value in environment.items() if key.upper() == "PATH"), "")
            folders = [
                cwd,
                r"C:\Windows\System32",
                r"C:\Windows",
                *(part.strip('"') for part in path.split(";") if part),
            ]
        for folder in folders:
            for candidate in names:
                full = ntpath.join(folder, candidate) if folder else candidate
                if self.files.is_file(full):
                    return self.files.shown(full)
        raise WindowsError(2)

    async def serve_control(self, path: Path) -> None:
        """Answer the stand-in executables of real processes on a Unix socket at ``path`` until power goes."""
        path.unlink(missing_ok=True)
        self._control = await asyncio.start_unix_server(lambda r, w: control.serve(self, r, w), path=path)
        self.control_socket = path

    # ------------------------------------------------------------------------------------------------------- commands

    async def execute(self, request: Request) -> Reply:
        """Answer one command that came over WinRM. Nothing raises: what fails gives a return code and a text."""
        handlers: dict[str, Callable[[Request, str], Awaitable[Reply]]] = {
            "module": self._module,
            "put_file": self._put_file,
            "fetch_file": self._fetch_file,
            "mkdtemp": self._mkdtemp,
            "expand_user": self._expand_user,
            "powershell": self._powershell,
            "script": self._script,
            "command": self._command,
        }
        self.winrm_commands += 1
        user = self._default_user()
        try:
            if request.become is not None:
                user = self._become(request.become)
            return await handlers[request.kind](request, user)
        except NoStandIn as error:
            self.log(str(error))
            return Reply(1, stderr=f"{error}\r\n".encode())
        except (WindowsError, OSError) as error:
            return Reply(1, stderr=f"{error}\r\n".encode())

    def _default_user(self) -> str:
        return next(iter(self.accounts.remote_users()), SYSTEM)

    def _become(self, become: Mapping[str, Any]) -> str:
        name = str(become.get("BecomeUser", ""))
        try:
            sid = self.accounts.sid(name)
        except WindowsError as error:
            raise WindowsError(error.code, f"Failed to become user '{name}': {error}") from None
        if sid in ("S-1-5-18", "S-1-5-19", "S-1-5-20"):
            return SYSTEM
        user = self.accounts.user(name)
        password = become.get("BecomePassword")
        if user is None or (password is not None and user.password != password):
            raise WindowsError(1326, f"Failed to become user '{name}': The user name or password is incorrect.")
        return user.name

    async def _module(self, request: Request, user: str) -> Reply:
        if request.asynchronous is None:
            return modules.reply(await modules.run(self, request, user))
        wrapper = request.asynchronous
        folder = self.files.make_directory(commandline.expand(str(wrapper["AsyncDir"]), self.environment(user)))
        process_id = 4000 + len(self._background)
        job = f"{wrapper['AsyncJid']}.{process_id}"
        path = ntpath.join(folder, job)
        started = {
            "started": True,
            "finished": False,
            "results_file": path,
            "ansible_job_id": job,
            "_ansible_suppress_tmpdir_delete": True,
            "ansible_async_watchdog_pid": process_id,
        }
        self.files.write_bytes(path, json.dumps(started).encode())

        async def watch() -> None:
            try:
                result = await asyncio.wait_for(modules.run(self, request, user), float(wrapper["Timeout"]))
            except TimeoutError:
                result = {
                    "failed": True,
                    "msg": "failure during async watchdog: timed out waiting for module completion",
                }
            self.files.write_bytes(path, json.dumps({**started, "finished": True, **result}).encode())

        self.later(0, watch, f"asynchronous {request.module}")
        return modules.reply(started)

    async def _put_file(self, request: Request, user: str) -> Reply:
        content = b"".join(base64.b64decode(line) for line in request.data.splitlines())
        self.files.write_bytes(str(request.parameters["Path"]), content)
        digest = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        return Reply(0, json.dumps({"sha1": digest}).encode() + b"\r\n")

    async def _fetch_file(self, request: Request, user: str) -> Reply:
        path = str(request.parameters["Path"])
        if self.files.is_directory(path):
            return Reply(0, b"[DIR]\r\n")
        if not self.files.is_file(path):
            return Reply(1, stderr=f"{path} does not exist\r\n".encode())
        offset = int(request.parameters["Offset"])
        chunk = self.files.read_bytes(path)[offset : offset + int(request.parameters["BufferSize"])]
        return Reply(0, base64.b64encode(chunk) + b"\r\n" if chunk else b"")

    async def _mkdtemp(self, request: Request, user: str) -> Reply:
        parent = commandline.expand(str(request.parameters["Directory"]), self.environment(user))
        path = self.files.make_directory(ntpath.join(parent, str(request.parameters["Name"])))
        return Reply(0, f"{path}\r\n".encode())

    async def _expand_user(self, request: Request, user: str) -> Reply:
        path = str(request.parameters["Path"])
        if path == "~" or path.startswith("~\\"):
            path = self.environment(user)["USERPROFILE"] + path[1:]
        return Reply(0, f"{path}\r\n".encode())

    async def _powershell(self, request: Request, user: str) -> Reply:
        outcome = await powershell.run(self, request.script, user)
        return Reply(outcome.rc, outcome.stdout, outcome.stderr)

    async def _script(self, request: Request, user: str) -> Reply:
        raise NoStandIn("scripts (the action 'script')", "use a module or win_command")

    async def _command(self, request: Request, user: str) -> Reply:
        outcome = await self.run(
            commandline.split(request.script), stdin=request.stdin.encode(), user=user, cwd=self.home(user)
        )
        return Reply(outcome.rc, outcome.stdout, outcome.stderr)

    def home(self, user: str) -> str:
        """The profile folder of a user, made when it does not exist yet (as at the first logon)."""
        profile = self.environment(user)["USERPROFILE"]
        self.files.make_directory(self.environment(user)["TEMP"])
        return self.files.make_directory(profile)


@contextmanager
def loaded(root: Path, platform: Platform) -> Iterator[WindowsHost]:
    """A host without power whose disk is to be changed (images, tests); saved at the end."""
    host = WindowsHost(root, platform)
    yield host
    host.state.save()
