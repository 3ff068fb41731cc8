"""The Backburner manager: registrations, the queue, and the text protocol on its port.

What is documented and what is ours: docs/rehearsal/backburner.md.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from rehearsal.backburner import jobs
from rehearsal.backburner.host import FILE_ERRORS, PROFILE, Host, resolve, write_file
from rehearsal.backburner.jobs import Job, JobError
from rehearsal.backburner.log import Log
from rehearsal.backburner.protocol import (
    ABSENT,
    BUSY,
    COMPLETE,
    CONTROLLER_PROMPT,
    ERROR,
    GREETING,
    IDLE,
    JOB_SUSPENDED,
    PROMPT,
    WAITING,
    Answer,
    Connection,
    ProtocolError,
    element,
    encode,
    listing,
    read_line,
    send,
    stamp,
)
from rehearsal.backburner.settings import Settings, SettingsError, load, normal_mac, server_handle
from rehearsal.windows.errors import WindowsError

SERVERS_FOLDER = PROFILE + r"\Servers"
CONTROLLER_SILENCE = 10.0
"""Seconds after which a controller that says nothing loses control (3ds Max SDK, network rendering)."""

OK = Answer(200, "OK")
_UNKNOWN = Answer(500, "Unknown command")
_BAD_ARGUMENTS = Answer(501, "Bad arguments")
_NOT_REGISTERED = Answer(503, "Not a registered server")
_NO_HANDLE = Answer(504, "Invalid handle")
_NOT_CONTROLLER = Answer(503, "Not the queue controller")


@dataclass
class Server:
    """A render node as the manager knows it."""

    handle: str
    mac: str
    name: str
    address: str
    key: str = ""
    """Shows the server that a task is from the manager that it registered with."""
    state: int = ABSENT
    user: str = ""
    registered: float | None = None
    session: _Session | None = None
    pinged: bool = False
    tasks_done: int = 0
    render_seconds: float = 0.0
    task: tuple[int, int] | None = None
    """Job handle and frame of what it renders now."""


@dataclass(eq=False)
class _Session:
    """One connection to the manager's port."""

    writer: asyncio.StreamWriter
    address: str
    heard: float
    server: str | None = None
    controller: bool = False
    task: asyncio.Task[Any] | None = None


@dataclass
class _Counters:
    requests: int = 0
    bad: int = 0
    started: float = field(default_factory=time.time)


class BackburnerManager:
    """The program of the service ``BACKBURNER_MGR_200``. ``time_scale`` shortens every wait (tests)."""

    def __init__(self, time_scale: float = 1.0) -> None:
        self._time_scale = time_scale

    async def __call__(self, host: Host, service: str) -> None:
        """Run until cancelled. WindowsError 1067 when it cannot start; backburner.log says why."""
        log = Log(host, "managersvc.exe")
        log.info(f"Backburner Manager starting ({service})")
        try:
            settings = load(host, "ManagerSettings")
            manager = _Manager(host, settings, log, self._time_scale)
            manager.restore()
        except (SettingsError, JobError, *FILE_ERRORS) as error:
            log.error(f"Cannot start manager: {error}")
            raise WindowsError(1067, f"Cannot start manager: {error}") from error
        await manager.run()


class _Manager:
    def __init__(self, host: Host, settings: Settings, log: Log, time_scale: float) -> None:
        self.host = host
        self.settings = settings
        self.log = log
        self.scale = time_scale
        self.servers: dict[str, Server] = {}
        self.jobs: dict[int, Job] = {}
        self.sessions: set[_Session] = set()
        self.counters = _Counters()
        self.wake = asyncio.Event()
        self.background: set[asyncio.Task[None]] = set()
        self.assigning = asyncio.Semaphore(settings.max_concurrent_assignments)
        self.queries: dict[str, Callable[[], Answer]] = {
            "mgrinfo": self._manager_info,
            "clientlist": self._client_list,
            "pluglist": lambda: listing(_plugins()),
            "srvlist": self._server_list,
            "joblist": self._job_list,
            "jobhlist": self._job_handles,
            "jobarchive": lambda: listing(element("JobArchive")),
        }

    # ------------------------------------------------------------------------------------------------------ running

    def restore(self) -> None:
        """Read the queue and the known servers (all absent until they register again) of the last run."""
        for job in jobs.load(self.host.files):
            self.jobs[job.handle] = job
        files = self.host.files
        for name in files.names(SERVERS_FOLDER) if files.exists(SERVERS_FOLDER) else ():
            path = f"{SERVERS_FOLDER}\\{name}"
            try:
                root = ElementTree.fromstring(files.read_bytes(path))
                mac = normal_mac(root.findtext("Mac", ""))
            except (ElementTree.ParseError, SettingsError) as error:
                raise JobError(f"{path} cannot be read ({error}); delete it to forget that server") from error
            server = Server(
                server_handle(mac),
                mac,
                root.findtext("Name", ""),
                root.findtext("Address", ""),
                user=root.findtext("User", ""),
            )
            self.servers[server.handle] = server

    async def run(self) -> None:
        try:
            listener = await self.host.platform.listen(self.settings.manager_port, self._serve)
        except OSError as error:
            port = self.settings.manager_port
            reason = f"Error starting network subsystem, cannot start manager: port {port}: {error}"
            self.log.error(reason)
            raise WindowsError(1067, reason) from error
        self.log.info(f"Manager ready on {self.host.platform.nic.address}:{self.settings.manager_port}")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._assign_forever())
                group.create_task(self._ping_forever())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        finally:
            listener.close()
            for session in tuple(self.sessions):
                session.writer.close()
                if session.task is not None:
                    session.task.cancel()
            for task in tuple(self.background):
                task.cancel()
            self.log.info("Backburner Manager stopped")

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.background.add(task)
        task.add_done_callback(self.background.discard)

    # ------------------------------------------------------------------------------------------------- text protocol

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        session = _Session(writer, str(peer[0]), time.monotonic(), task=asyncio.current_task())
        self.sessions.add(session)
        try:
            await send(writer, GREETING + PROMPT)
            while (line := await read_line(reader)) is not None:
                session.heard = time.monotonic()
                self.counters.requests += 1
                answer = await self._answer(session, line)
                if answer.code >= 500:
                    self.counters.bad += 1
                    self.log.debug(f"{session.address}: {line[:200]!r} refused: {answer.code} {answer.text}")
                await send(writer, encode(answer) + (CONTROLLER_PROMPT if session.controller else PROMPT))
        except (ProtocolError, ConnectionError) as error:
            self.log.debug(f"connection from {session.address} ended: {error}")
        finally:
            self.sessions.discard(session)
            if session.server is not None:
                self._gone(session)
            writer.close()

    async def _answer(self, session: _Session, line: str) -> Answer:
        words = line.split()
        match words:
            case ["get", query] if query in self.queries:
                return self.queries[query]()
            case ["get", "jobinfo" | "jobstate" as query, handle]:
                job = self.jobs.get(_decimal(handle))
                if job is None:
                    return _NO_HANDLE
                if query == "jobinfo":
                    return listing(jobs.info(job))
                return listing(element("JobState", element("Handle", job.handle), element("State", job.state)))
            case ["get", "server", handle]:
                server = self.servers.get(handle.upper())
                return _NO_HANDLE if server is None else listing(_server_info(server))
            case ["get", *_]:
                return _UNKNOWN
            case ["new", "controller"]:
                return self._take_control(session)
            case ["del", "controller", *_]:
                session.controller = False
                return OK
            case ["set", "jobstate", _, _] | ["del", "job", _] | ["del", "server", _] if not session.controller:
                return _NOT_CONTROLLER
            case ["set", "jobstate", handle, state]:
                return self._set_job_state(_decimal(handle), state)
            case ["del", "job", handle]:
                return self._delete_job(_decimal(handle))
            case ["del", "server", handle]:
                return self._delete_server(handle.upper())
            case ["ping"]:
                return OK if session.server is not None else _NOT_REGISTERED
            case ["register" | "report" | "submit" as own, *_]:
                try:
                    request = json.loads(line[len(own) :])
                except ValueError:
                    return _BAD_ARGUMENTS
                if not isinstance(request, dict):
                    return _BAD_ARGUMENTS
                if own == "register":
                    return await self._register(session, request)
                return self._report(session, request) if own == "report" else self._submit(request)
            case _:
                return _UNKNOWN

    def _take_control(self, session: _Session) -> Answer:
        holder = next((other for other in self.sessions if other.controller and other is not session), None)
        if holder is not None:
            if time.monotonic() - holder.heard < CONTROLLER_SILENCE * self.scale:
                return Answer(503, f"Queue control is held by {holder.address}")
            holder.controller = False
            self.log.warning(f"Queue controller {holder.address} does not answer and loses control")
        session.controller = True
        self.log.info(f"Queue control granted to {session.address}")
        return Answer(201, "Controller granted")

    # -------------------------------------------------------------------------------------------------------- queries

    def _manager_info(self) -> Answer:
        return listing(
            element(
                "ManagerInfo",
                element("Version", 200),
                element("Servers", len(self.servers)),
                element("Jobs", len(self.jobs)),
                _system_info(self.host.computer_name, self.settings.mac, str(self.host.platform.nic.address)),
                element(
                    "NetStat",
                    element("DroppedPackets", 0),
                    element("BadPackets", self.counters.bad),
                    element("TcpRequests", self.counters.requests),
                    element("UdpRequests", 0),
                    element("BootTime", stamp(self.counters.started)),
                ),
            )
        )

    def _client_list(self) -> Answer:
        return listing(
            element(
                "ClientList",
                *(
                    element(
                        "Client",
                        element("Version", 200),
                        element("UdpPort", 0),
                        element("Controller", int(session.controller)),
                        _system_info("", "000000000000", session.address),
                    )
                    for session in sorted(self.sessions, key=lambda session: session.address)
                    if session.server is None
                ),
            )
        )

    def _server_list(self) -> Answer:
        return listing(
            element(
                "ServerList",
                *(
                    element("Server", element("Handle", s.handle), element("State", s.state), element("Name", s.name))
                    for s in self.servers.values()
                ),
            )
        )

    def _job_list(self) -> Answer:
        return listing(
            element(
                "JobList",
                *(
                    element(
                        "Job", element("Handle", job.handle), element("State", job.state), element("Name", job.name)
                    )
                    for job in self.jobs.values()
                ),
            )
        )

    def _job_handles(self) -> Answer:
        return listing(
            element(
                "JobHandleList",
                *(
                    element("Job", element("Handle", job.handle), element("State", job.state))
                    for job in self.jobs.values()
                ),
            )
        )

    # -------------------------------------------------------------------------------------------------- registrations

    async def _register(self, session: _Session, request: dict[str, Any]) -> Answer:
        try:
            mac = normal_mac(str(request["mac"]))
            name = str(request["name"])
        except (KeyError, SettingsError) as error:
            return Answer(501, f"Bad arguments: {error}")
        address = resolve(self.host, name)
        if address is None:
            address = session.address
            self.log.warning(f"host not found: {name}; using the address it calls from, {address}")
        try:
            await self._ask(address, "ping")
        except (OSError, TimeoutError, ProtocolError) as error:
            reason = f"{name} ({address}) port {self.settings.server_port}: {_reason(error)}"
            self.log.error(f"Host access error: {reason}")
            return Answer(510, f"Host access error: {reason}")
        server = Server(server_handle(mac), mac, name, address, str(request.get("key", "")))
        before = self.servers.get(server.handle)
        if before is not None:
            self._replace(before, server)
        try:
            self._remember(server, str(request.get("user", "")))
        except FILE_ERRORS as error:
            self.log.error(f"Error registering server {name}: cannot write {SERVERS_FOLDER}: {error}")
            return Answer(511, "Error registering server: the manager cannot write its files")
        server.registered = time.time()
        server.state = IDLE
        server.session = session
        session.server = server.handle
        self.servers[server.handle] = server
        self.log.info(f"Successful Registration: {name} ({address}), handle {server.handle}")
        self.wake.set()
        return OK

    def _replace(self, before: Server, server: Server) -> None:
        """The same MAC is the same server: the newer registration takes the place of the older one."""
        if before.state != ABSENT and before.session is not None:
            self.log.warning(
                f"Server {before.handle} registers again from {server.name} ({server.address}); "
                f"it was {before.name} ({before.address}) until now"
            )
            before.session.server = None
            before.session.writer.close()
        self._requeue(before, "registered again")
        server.tasks_done, server.render_seconds = before.tasks_done, before.render_seconds

    def _remember(self, server: Server, user: str) -> None:
        server.user = user
        root = element(
            "Server",
            element("Mac", server.mac),
            element("Name", server.name),
            element("Address", server.address),
            element("User", user),
        )
        write_file(self.host.files, f"{SERVERS_FOLDER}\\{server.handle}.xml", ElementTree.tostring(root, "UTF-8"))

    def _gone(self, session: _Session) -> None:
        server = self.servers.get(session.server or "")
        if server is not None and server.session is session:
            self._absent(server, "closed its connection")

    def _absent(self, server: Server, why: str) -> None:
        server.state = ABSENT
        if server.session is not None:
            server.session.server = None
            server.session.writer.close()
            server.session = None
        self.log.warning(
            f"Server {server.name} ({server.address}), handle {server.handle}, is down: {why}; put off-line"
        )
        self._requeue(server, why)

    def _requeue(self, server: Server, why: str) -> None:
        server.task = None
        for job in self.jobs.values():
            for frame in job.release(server.handle):
                self.log.warning(f"Job {job.handle:08X} {job.name}: frame {frame} of {server.name} requeued: {why}")
                self.wake.set()

    def _delete_server(self, handle: str) -> Answer:
        server = self.servers.get(handle)
        if server is None:
            return _NO_HANDLE
        if server.state != ABSENT:
            return Answer(505, "Only absent servers can be deleted")
        try:
            self.host.files.delete(f"{SERVERS_FOLDER}\\{handle}.xml")
        except FILE_ERRORS as error:
            return Answer(511, f"Cannot delete server: {error}")
        del self.servers[handle]
        self.log.info(f"Server {server.name}, handle {handle}, deleted")
        return OK

    async def _ping_forever(self) -> None:
        while True:
            await asyncio.sleep(self.settings.ack_timeout * self.scale)
            for server in self.servers.values():
                if server.state != ABSENT and not server.pinged:
                    self._start(self._ping(server))

    async def _ping(self, server: Server) -> None:
        """One ping; when it stays unanswered, AckRetries pings of AckTimeout each, then the server is put off-line."""
        server.pinged = True
        try:
            for attempt in range(1, self.settings.ack_retries + 1):
                began = time.monotonic()
                try:
                    await self._ask(server.address, "ping")
                    return
                except (OSError, TimeoutError, ProtocolError) as error:
                    reason = _reason(error)
                if self.servers.get(server.handle) is not server or server.state == ABSENT:
                    return
                self.log.debug(f"{server.name} ({server.address}) does not answer ({attempt}): {reason}")
                await asyncio.sleep(self.settings.ack_timeout * self.scale - (time.monotonic() - began))
            if self.servers.get(server.handle) is server and server.state != ABSENT:
                self._absent(server, f"no answer to {self.settings.ack_retries} pings")
        finally:
            server.pinged = False

    async def _ask(self, address: str, command: str) -> Answer:
        """One command to a server's port within the acknowledge time. ProtocolError unless it answers with 200."""
        async with asyncio.timeout(self.settings.ack_timeout * self.scale):
            port = self.settings.server_port
            reader, writer = await self.host.platform.connect(
                address, port, timeout=self.settings.ack_timeout * self.scale
            )
            connection = Connection(reader, writer)
            try:
                await connection.greet()
                answer = await connection.command(command)
            finally:
                connection.close()
        if answer.code != 200:
            raise ProtocolError(f"{answer.code} {answer.text}")
        return answer

    # ------------------------------------------------------------------------------------------------------- the queue

    def _submit(self, request: dict[str, Any]) -> Answer:
        handle = int(time.time()) & 0xFFFFFFFF
        while handle in self.jobs:
            handle = handle + 1 & 0xFFFFFFFF
        try:
            job = jobs.new_job(handle, request)
            jobs.save(self.host.files, job)
        except JobError as error:
            return Answer(501, f"Bad arguments: {error}")
        except FILE_ERRORS as error:
            self.log.error(f"Cannot write {job.folder}: {error}")
            return Answer(511, "The manager cannot write its files")
        self.jobs[handle] = job
        self.log.info(f"Job {handle:08X} {job.name} submitted: {len(job.frames)} tasks")
        self.wake.set()
        return Answer(200, str(handle))

    def _set_job_state(self, handle: int, state: str) -> Answer:
        job = self.jobs.get(handle)
        if job is None:
            return _NO_HANDLE
        if state not in (str(WAITING), str(JOB_SUSPENDED)):
            return Answer(501, "Bad arguments: a job can be set to 1 (waiting) or 4 (suspended)")
        job.suspended = state == str(JOB_SUSPENDED)
        if job.suspended:
            self._withdraw(job)
        else:
            job.failures.clear()
        self._save(job)
        self.log.info(f"Job {handle:08X} {job.name} {'suspended' if job.suspended else 'activated'}")
        self.wake.set()
        return OK

    def _delete_job(self, handle: int) -> Answer:
        job = self.jobs.get(handle)
        if job is None:
            return _NO_HANDLE
        try:
            self.host.files.delete(job.folder)
        except FILE_ERRORS as error:
            return Answer(511, f"Cannot delete job: {error}")
        del self.jobs[handle]
        self._withdraw(job)
        self.log.info(f"Job {handle:08X} {job.name} deleted")
        return OK

    def _withdraw(self, job: Job) -> None:
        """Take a job's running tasks back from the servers."""
        for handle in set(job.assigned.values()):
            server = self.servers[handle]
            job.release(handle)
            server.task = None
            self._start(self._cancel(server, job))

    async def _cancel(self, server: Server, job: Job) -> None:
        try:
            await self._ask(server.address, f"cancel {server.key} {job.handle}")
        except (OSError, TimeoutError, ProtocolError) as error:
            self.log.warning(
                f"{server.name} ({server.address}) was not told to stop job {job.handle:08X}: {_reason(error)}"
            )
        self._idle(server)  # only now: a new task must not overtake the order to drop the old one
        self.wake.set()

    def _idle(self, server: Server) -> None:
        server.task = None
        if server.state == BUSY:
            server.state = IDLE

    async def _assign_forever(self) -> None:
        while True:
            await self.wake.wait()
            self.wake.clear()
            for server in list(self.servers.values()):
                if server.state != IDLE:
                    continue
                job = self._job_for(server)
                frame = job.next_frame() if job is not None else None
                if job is None or frame is None:
                    continue
                job.assigned[frame] = server.handle
                server.state = BUSY
                server.task = (job.handle, frame)
                if job.started is None:
                    job.started = time.time()
                self._start(self._assign(server, job, frame))

    def _job_for(self, server: Server) -> Job | None:
        limit = self.settings.server_limit
        for job in jobs.by_priority(self.jobs.values()):
            if job.failures.get(server.handle, 0) > (
                self.settings.retry_count if self.settings.retry_failed_servers else 0
            ):
                continue
            if limit is not None and len(set(job.assigned.values())) >= limit:
                continue
            if job.next_frame() is not None:
                return job
        return None

    async def _assign(self, server: Server, job: Job, frame: int) -> None:
        task: dict[str, Any] = {
            "job": job.handle,
            "name": job.name,
            "frame": frame,
            "seconds": job.seconds,
            "output": job.output,
        }
        if job.command:
            task["command"] = job.command
        async with self.assigning:
            try:
                await self._ask(server.address, f"run {server.key} {json.dumps(task)}")
            except (OSError, TimeoutError, ProtocolError) as error:
                if self.servers.get(server.handle) is server and server.task == (job.handle, frame):
                    self._failed(server, job, frame, f"it did not take the task: {_reason(error)}")

    def _report(self, session: _Session, request: dict[str, Any]) -> Answer:
        """A server's word on its task. Only the registered server of that handle and address is heard."""
        server = self.servers.get(str(request.get("server")))
        if server is None or server.session is None or server.session.address != session.address:
            return _NOT_REGISTERED
        job, frame = self.jobs.get(_decimal(str(request.get("job")))), request.get("frame")
        if job is None or not isinstance(frame, int) or job.assigned.get(frame) != server.handle:
            return _NO_HANDLE
        if request.get("error"):
            self._failed(server, job, frame, str(request["error"]))
            return OK
        del job.assigned[frame]
        job.finished.add(frame)
        server.tasks_done += 1
        server.render_seconds += job.seconds
        if job.state == COMPLETE:
            job.ended = time.time()
            self.log.info(f"Job {job.handle:08X} {job.name} complete")
        self._save(job)
        self._idle(server)
        self.wake.set()
        return OK

    def _failed(self, server: Server, job: Job, frame: int, why: str) -> None:
        job.assigned.pop(frame, None)
        job.failures[server.handle] = job.failures.get(server.handle, 0) + 1
        self.log.error(f"Job {job.handle:08X} {job.name}: frame {frame} failed on {server.name}: {why}")
        server.task = None
        server.state = ERROR
        self._start(self._recover(server))
        self.wake.set()

    async def _recover(self, server: Server) -> None:
        await asyncio.sleep(self.settings.time_between_retries * self.scale)
        if server.state == ERROR:
            server.state = IDLE
            self.wake.set()

    def _save(self, job: Job) -> None:
        try:
            jobs.save(self.host.files, job)
        except FILE_ERRORS as error:
            self.log.error(f"Cannot write {job.folder}: {error}")


def _decimal(text: str) -> int:
    """A job handle as the protocol wants it (decimal); -1, which no job has, for anything else."""
    return int(text) if re.fullmatch(r"\d{1,10}", text) else -1


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused (Service not installed on host computer)"
    return str(error) or type(error).__name__


def _system_info(computer: str, mac: str, address: str) -> ElementTree.Element:
    return element(
        "SystemInfo",
        element("Memory", 32768),
        element("MemoryF", 32768.0),
        element("Cpus", 8),
        element("Platform", "Windows Server 2022"),
        element("User", "LocalService"),
        element("ComputerName", computer),
        element("Mac", ":".join(mac[i : i + 2] for i in range(0, 12, 2)).upper()),
        element("WorkDisk", 100000),
        element("Ip", address),
    )


def _plugins() -> ElementTree.Element:
    names = (("3dsmax", "3ds Max network rendering"), ("cmdjob", "Command line jobs"))
    return element(
        "PluginList",
        *(
            element("Plugin", element("Version", 200), element("Name", name), element("Description", text))
            for name, text in names
        ),
    )


def _server_info(server: Server) -> ElementTree.Element:
    job, frame = server.task or (0, 0)
    return element(
        "ServerInfo",
        element(
            "Server",
            element("Version", 200),
            element("Name", server.name),
            element("User", server.user),
            element("TotalTasks", server.tasks_done),
            element("TotalTime", server.render_seconds),
            element("PerfIndex", 1.0),
            element("Ip", server.address),
            element("State", server.state),
        ),
        element(
            "Hardware",
            element("Memory", 32768),
            element("MemoryF", 32768.0),
            element("Cpus", 16),
            element("Platform", "Windows Server 2022"),
            element("WorkDisk", 100000),
            element("Mac", ":".join(server.mac[i : i + 2] for i in range(0, 12, 2)).upper()),
        ),
        element(
            "Current", element("Job", job), element("Task", frame), element("Registered", stamp(server.registered))
        ),
    )
