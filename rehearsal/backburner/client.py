"""A client of the manager's text protocol: looks at servers and jobs, submits fake render jobs.

As a program, from any machine that reaches the manager:
``python -m rehearsal.backburner.client ADDRESS servers|jobs|submit|delete|suspend|resume …``
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

from rehearsal.backburner.protocol import COMPLETE, Answer, Connection, ProtocolError

DEFAULT_PORT = 3234
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Open = Callable[[str, int], Awaitable[Streams]]

_SERVER_STATES = ("absent", "idle", "busy", "error", "suspended")
_JOB_STATES = ("complete", "waiting", "busy", "error", "suspended")


class Refused(Exception):
    """The manager answered a command with an error."""


@dataclass(frozen=True)
class ServerEntry:
    handle: str
    state: int
    name: str


@dataclass(frozen=True)
class JobEntry:
    handle: int
    state: int
    name: str


class ManagerClient:
    """One open connection to a manager."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def command(self, text: str) -> Answer:
        """Any command, with its raw reply. ProtocolError, OSError."""
        return await self._connection.command(text)

    async def servers(self) -> list[ServerEntry]:
        """``get srvlist``, values by position."""
        root = (await self._expect("get srvlist", 251)).root()
        return [ServerEntry(server[0].text or "", int(server[1].text or ""), server[2].text or "") for server in root]

    async def jobs(self) -> list[JobEntry]:
        """``get joblist``, values by position."""
        root = (await self._expect("get joblist", 251)).root()
        return [JobEntry(int(job[0].text or ""), int(job[1].text or ""), job[2].text or "") for job in root]

    async def submit(self, *, name: str, first: int, last: int, seconds: float, output: str, priority: int = 50) -> int:
        """Queue a job of the frames ``first`` to ``last``; each takes ``seconds`` and writes a file. Gives its handle.

        ``output`` is a Windows path on the node that renders; ``C:\\Render\\shot.exr`` turns into ``shot0001.exr`` ….
        """
        job = {"name": name, "first": first, "last": last, "seconds": seconds, "output": output, "priority": priority}
        return int((await self._expect(f"submit {json.dumps(job)}", 200)).text)

    async def control(self) -> None:
        """Become the queue controller. Refused when another client is."""
        await self._expect("new controller", 201)

    async def delete_job(self, handle: int) -> None:
        """Needs control."""
        await self._expect(f"del job {handle}", 200)

    async def set_job_state(self, handle: int, state: int) -> None:
        """Needs control. 1 activates a job, 4 suspends it."""
        await self._expect(f"set jobstate {handle} {state}", 200)

    async def delete_server(self, handle: str) -> None:
        """Needs control; only absent servers can be deleted."""
        await self._expect(f"del server {handle}", 200)

    async def wait_for_job(self, handle: int, *, timeout: float, interval: float = 0.5) -> None:
        """Return when the job is complete. TimeoutError after ``timeout`` seconds."""
        async with asyncio.timeout(timeout):
            while next((job.state for job in await self.jobs() if job.handle == handle), None) != COMPLETE:
                await asyncio.sleep(interval)

    async def _expect(self, text: str, code: int) -> Answer:
        answer = await self.command(text)
        if answer.code != code:
            raise Refused(f"{' '.join(text.split(' ', 2)[:2])}: {answer.code} {answer.text}")
        return answer


@asynccontextmanager
async def manager_client(
    address: str, port: int = DEFAULT_PORT, open_streams: Open = asyncio.open_connection
) -> AsyncIterator[ManagerClient]:
    """A connection to the manager at ``address``. OSError when nothing listens, ProtocolError when it is no manager."""
    connection = Connection(*await open_streams(address, port))
    try:
        await connection.greet()
        yield ManagerClient(connection)
    finally:
        connection.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rehearsal.backburner.client", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("address", help="address of the manager")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("servers", aliases=["get srvlist"], help="the registered render nodes")
    commands.add_parser("jobs", aliases=["get joblist"], help="the queue")
    submit = commands.add_parser("submit", help="queue a fake render job")
    submit.add_argument("--name", required=True)
    submit.add_argument("--frames", required=True, help="first-last, for example 1-100")
    submit.add_argument("--seconds", type=float, default=1.0, help="how long one frame takes")
    submit.add_argument("--output", required=True, help=r"Windows path on the node, for example C:\Render\shot.exr")
    submit.add_argument("--priority", type=int, default=50)
    submit.add_argument(
        "--wait", type=float, metavar="SECONDS", help="wait until the job is complete, at most this long"
    )
    for name, text in (("delete", "delete a job"), ("suspend", "suspend a job"), ("resume", "activate a job")):
        commands.add_parser(name, help=text).add_argument("job", type=int, help="handle of the job, decimal")
    return parser


async def _run(options: argparse.Namespace) -> object:
    async with manager_client(options.address, options.port) as client:
        match options.command:
            case "servers" | "get srvlist":
                return [asdict(server) | {"state": _SERVER_STATES[server.state]} for server in await client.servers()]
            case "jobs" | "get joblist":
                return [asdict(job) | {"state": _JOB_STATES[job.state]} for job in await client.jobs()]
            case "submit":
                first, _, last = options.frames.partition("-")
                handle = await client.submit(
                    name=options.name,
                    first=int(first),
                    last=int(last or first),
                    seconds=options.seconds,
                    output=options.output,
                    priority=options.priority,
                )
                if options.wait is not None:
                    await client.wait_for_job(handle, timeout=options.wait)
                return {"job": handle}
        await client.control()
        if options.command == "delete":
            await client.delete_job(options.job)
        else:
            await client.set_job_state(options.job, 4 if options.command == "suspend" else 1)
        return {"job": options.job}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and print its result as JSON; 1 when the manager cannot be reached or refuses."""
    options = _parser().parse_args(arguments)
    try:
        result = asyncio.run(_run(options))
    except TimeoutError:
        print("the job is not complete yet", file=sys.stderr)
        return 1
    except (OSError, ProtocolError, Refused, ValueError) as error:
        print(f"{options.address}:{options.port}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
