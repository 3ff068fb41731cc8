"""The Backburner server of a render node: registers with its manager and renders fake frames.

What is documented and what is ours: docs/rehearsal/backburner.md.
"""

from __future__ import annotations

import asyncio
import json
import ntpath
import secrets
from dataclasses import dataclass
from typing import Any

from rehearsal.backburner.host import FILE_ERRORS, Host, in_task_list, resolve, write_output
from rehearsal.backburner.log import Log
from rehearsal.backburner.protocol import GREETING, PROMPT, Answer, Connection, ProtocolError, encode, read_line, send
from rehearsal.backburner.settings import Settings, SettingsError, load, server_handle
from rehearsal.windows.errors import NoStandIn, WindowsError

REGISTER_INTERVAL = 5.0
"""Seconds between two attempts to register."""
ACCOUNT = "NT AUTHORITY\\LocalService"
RENDER_IMAGES = ("maxadapter.adp.exe", "3dsmax.exe")
"""Processes below serversvc.exe while a frame is rendered: the adapter and its child."""

OK = Answer(200, "OK")


class BackburnerServer:
    """The program of the service ``BACKBURNER_SRV_200``. ``time_scale`` shortens every wait but rendering (tests)."""

    def __init__(self, time_scale: float = 1.0) -> None:
        self._time_scale = time_scale

    async def __call__(self, host: Host, service: str) -> None:
        """Run until cancelled. WindowsError 1067 when it cannot start; backburner.log says why."""
        log = Log(host, "serversvc.exe")
        log.info(f"Backburner Server starting ({service})")
        try:
            settings = load(host, "ServerSettings")
        except (SettingsError, *FILE_ERRORS) as error:
            log.error(f"Cannot start server: {error}")
            raise WindowsError(1067, f"Cannot start server: {error}") from error
        await _Server(host, service, settings, log, self._time_scale).run()


@dataclass(frozen=True)
class _Task:
    job: int
    name: str
    frame: int
    seconds: float
    output: str
    command: tuple[str, ...] = ()
    """What the task runs instead of rendering."""

    @property
    def file(self) -> str:
        """Where the frame goes: ``shot.exr`` becomes ``shot0007.exr``, as 3ds Max numbers its output."""
        stem, extension = ntpath.splitext(self.output)
        return f"{stem}{self.frame:04d}{extension}"


class _Server:
    def __init__(self, host: Host, service: str, settings: Settings, log: Log, time_scale: float) -> None:
        self.host = host
        self.service = service
        self.settings = settings
        self.log = log
        self.scale = time_scale
        self.handle = server_handle(settings.mac)
        self.manager: str | None = None
        """Address of the manager that it registers or is registered with. Set before the request is sent: the manager
        may give the first task before this end has read that it was accepted."""
        self.key = secrets.token_hex(8)
        """Told to the manager when registering; it comes back with each task. An address would not do: a manager with
        several calls each server from the one that is nearest to it."""
        self.rendering: tuple[_Task, asyncio.Task[None]] | None = None
        self.tasks: set[asyncio.Task[Any]] = set()

    async def run(self) -> None:
        try:
            listener = await self.host.platform.listen(self.settings.server_port, self._serve)
        except OSError as error:
            reason = f"Error starting network subsystem, cannot start server: port {self.settings.server_port}: {error}"
            self.log.error(reason)
            raise WindowsError(1067, reason) from error
        try:
            while True:
                await self._stay_registered()
                await asyncio.sleep(REGISTER_INTERVAL * self.scale)
        finally:
            listener.close()
            self._stop_rendering("the service stops")
            for task in tuple(self.tasks):
                task.cancel()
            self.log.info("Backburner Server stopped")

    # --------------------------------------------------------------------------------------------------- registration

    async def _stay_registered(self) -> None:
        """Register and return when the registration is refused or lost."""
        settings = self.settings
        if not settings.manager_name:
            self.log.error("Manager not found: backburner.xml names none (automatic search finds none either)")
            return
        address = resolve(self.host, settings.manager_name)
        if address is None:
            self.log.error(f"Manager not found: host not found: {settings.manager_name}")
            return
        try:
            connection = await self._connect(address)
        except (OSError, TimeoutError, ProtocolError) as error:
            self.log.error(f"Manager not found: {address} port {settings.manager_port}: {_reason(error)}")
            return
        try:
            self.manager = address
            answer = await connection.command(f"register {json.dumps(self._registration())}")
            if answer.code != 200:
                self.log.error(f"Error registering server: {answer.text}")
                return
            self.log.info(f"Registration to {address} accepted")
            why = await self._until_lost(connection)
            self.log.warning(f"Connection to manager {address} lost: {why}")
        except (OSError, ProtocolError) as error:
            self.log.error(f"Error registering server: {_reason(error)}")
        finally:
            self.manager = None
            self._stop_rendering("the manager is gone")
            connection.close()

    async def _until_lost(self, connection: Connection) -> str:
        """Ping the manager every AckTimeout and return, with the reason, when its end of the registration is gone.

        Manager and server ping each other, and either holds the other for down after AckRetries times AckTimeout (3ds
        Max help, "backburner.xml"). TCP sends a ping again by itself, so one here stands for all retries.
        """
        settings = self.settings
        while True:
            try:
                async with asyncio.timeout(settings.ack_timeout * self.scale):
                    await connection.ended()
                return "it was closed"
            except TimeoutError:
                pass
            try:
                async with asyncio.timeout(settings.ack_timeout * settings.ack_retries * self.scale):
                    answer = await connection.command("ping")
            except TimeoutError:
                return f"no answer to {settings.ack_retries} pings"
            if answer.code != 200:
                return answer.text

    def _registration(self) -> dict[str, str]:
        settings = self.settings
        return {"mac": settings.mac, "name": settings.server_name, "user": "LocalService", "key": self.key}

    async def _connect(self, address: str) -> Connection:
        timeout = self.settings.ack_timeout * self.scale
        async with asyncio.timeout(timeout):
            streams = await self.host.platform.connect(address, self.settings.manager_port, timeout=timeout)
            connection = Connection(*streams)
            try:
                await connection.greet()
            except BaseException:
                connection.close()
                raise
        return connection

    # ------------------------------------------------------------------------------------------------ the server's port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        current = asyncio.current_task()
        assert current is not None
        self.tasks.add(current)
        try:
            await send(writer, GREETING + PROMPT)
            while (line := await read_line(reader)) is not None:
                answer = self._answer(str(writer.get_extra_info("peername")[0]), line)
                await send(writer, encode(answer) + PROMPT)
        except (ProtocolError, ConnectionError) as error:
            self.log.debug(f"connection to port {self.settings.server_port} ended: {error}")
        finally:
            self.tasks.discard(current)
            writer.close()

    def _answer(self, peer: str, line: str) -> Answer:
        command, _, argument = line.partition(" ")
        if command == "ping":
            return OK
        if command not in ("run", "cancel"):
            return Answer(500, "Unknown command")
        key, _, argument = argument.partition(" ")
        if self.manager is None or key != self.key:
            self.log.warning(f"{command} from {peer} refused: the manager is {self.manager or 'not known'}")
            return Answer(503, "Not my manager")
        if command == "cancel":
            if self.rendering is not None and str(self.rendering[0].job) == argument.strip():
                self._stop_rendering("cancelled by the manager")
            return OK
        if self.rendering is not None:
            return Answer(509, "Busy")
        try:
            values = json.loads(argument)
            task = _Task(
                int(values["job"]),
                str(values["name"]),
                int(values["frame"]),
                float(values["seconds"]),
                str(values["output"]),
                tuple(str(word) for word in values.get("command", [])),
            )
        except (ValueError, KeyError, TypeError):
            return Answer(501, "Bad arguments")
        work = asyncio.create_task(self._render(task))
        self.tasks.add(work)
        work.add_done_callback(self.tasks.discard)
        self.rendering = (task, work)
        return OK

    # ------------------------------------------------------------------------------------------------------- rendering

    def _stop_rendering(self, why: str) -> None:
        if self.rendering is not None:
            task, work = self.rendering
            self.rendering = None
            work.cancel()
            self.log.warning(f"Job {task.job:08X} {task.name}: frame {task.frame} stopped: {why}")

    async def _run_command(self, task: _Task, report: dict[str, str | int]) -> None:
        """A task of cmdjob.exe: on Windows it runs as the account of this service (Backburner 2016 guide)."""
        words = [word.replace("%tn", str(task.frame)) for word in task.command]
        try:
            outcome = await self.host.run(words, user=ACCOUNT)
        except (*FILE_ERRORS, NoStandIn) as error:
            report["error"] = f"cannot run {words[0]}: {error}"
        else:
            if outcome.rc:
                text = (outcome.stdout + outcome.stderr).decode(errors="replace").strip()
                report["error"] = f"{words[0]} ended with {outcome.rc}: {text[-300:]}"
        if "error" in report:
            self.log.error(f"Job {task.job:08X} {task.name}: task {task.frame} failed: {report['error']}")

    async def _render(self, task: _Task) -> None:
        self.log.info(f"Job {task.job:08X} {task.name}: frame {task.frame} started")
        report: dict[str, str | int] = {"server": self.handle, "job": task.job, "frame": task.frame}
        if task.command:
            await self._run_command(task, report)
            self.rendering = None
            await self._report(report)
            return
        try:
            with in_task_list(self.host, RENDER_IMAGES, self.service) as running:
                await asyncio.sleep(task.seconds)
                if running is not None:
                    await running.responds()
            picture = f"frame {task.frame} of {task.name}, rendered by {self.settings.server_name}\r\n".encode()
            await write_output(self.host, task.file, picture)
            self.log.info(f"Job {task.job:08X} {task.name}: frame {task.frame} written to {task.file}")
        except FILE_ERRORS as error:
            report["error"] = f"cannot write {task.file}: {error}"
            self.log.error(f"Job {task.job:08X} {task.name}: frame {task.frame} failed: {report['error']}")
        self.rendering = None
        await self._report(report)

    async def _report(self, report: dict[str, str | int]) -> None:
        """Tell the manager how a frame ended; try again as long as this server is registered."""
        while (manager := self.manager) is not None:
            try:
                connection = await self._connect(manager)
                try:
                    answer = await connection.command(f"report {json.dumps(report)}")
                finally:
                    connection.close()
            except (OSError, TimeoutError, ProtocolError) as error:
                self.log.error(f"Frame {report['frame']} was not reported to {manager}: {_reason(error)}")
                await asyncio.sleep(REGISTER_INTERVAL * self.scale)
                continue
            if answer.code != 200:
                self.log.warning(f"Report of frame {report['frame']} refused: {answer.code} {answer.text}")
            return


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return str(error) or type(error).__name__
