"""Render nodes as records: EC2 knows them and the manager lists them, but no machine stands behind them.

For farms of a size that the machine below has no memory for. Each is a connection to the manager's port that registers
with the instance's MAC, opened inside the manager's own machine; one listener there answers the manager's pings for
all. A record is ready at once, says nothing on its console, takes no task and answers no probe.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from functools import partial

from rehearsal.backburner.protocol import GREETING, PROMPT, Answer, Connection, ProtocolError, encode, read_line, send
from rehearsal.interfaces import InstanceView, RehearsalError
from rehearsal.machine import Machine
from rehearsal.network import netns

log = logging.getLogger(__name__)

MANAGER_PORT, SERVER_PORT = 3234, 3233
_LOOPBACK = "127.0.0.1"
_AT_ONCE = 20  # registrations under way
_TIMEOUT = 10.0
_REFUSED = Answer(500, "Unknown command")
_OK = Answer(200, "OK")


class Records:
    """The records of one rehearsal. All methods belong to its event loop."""

    def __init__(self) -> None:
        self._nodes: dict[str, asyncio.Task[None]] = {}
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._manager: tuple[str, int | None] | None = None
        self._answering: asyncio.AbstractServer | None = None

    async def sync(self, nodes: Iterable[InstanceView], manager: Machine | None) -> None:
        """Have exactly ``nodes`` registered at the running ``manager``; None: there is no manager now."""
        if manager is None:
            await self._leave()
            return
        boot = (manager.namespace, manager.boots_seen)
        if boot != self._manager:
            await self._leave()
            listener = netns.listening_socket(manager.namespace, _LOOPBACK, SERVER_PORT)
            self._answering = await asyncio.start_server(_answer_pings, sock=listener)
            self._manager = boot
        wanted = {node.instance_id: node for node in nodes}
        for instance_id in self._nodes.keys() - wanted.keys():
            self._nodes[instance_id].cancel()
        for instance_id in wanted.keys() - self._nodes.keys():
            task = asyncio.create_task(self._stay(wanted[instance_id], manager.namespace), name=f"record {instance_id}")
            self._nodes[instance_id] = task
            task.add_done_callback(partial(self._forget, instance_id))

    def _forget(self, instance_id: str, _: asyncio.Task[None]) -> None:
        del self._nodes[instance_id]

    async def _leave(self) -> None:
        tasks = list(self._nodes.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._answering is not None:
            self._answering.close()
            self._answering = None
        self._manager = None

    async def _stay(self, node: InstanceView, namespace: str) -> None:
        """Register and stay until the manager ends it; the next round tries again."""
        connection: Connection | None = None
        try:
            async with self._gate, asyncio.timeout(_TIMEOUT):
                connection = Connection(
                    *await netns.open_connection(namespace, _LOOPBACK, MANAGER_PORT, timeout=_TIMEOUT)
                )
                await connection.greet()
                # a name that nothing resolves: the manager calls back where the registration came from
                request = {"mac": node.interface.mac.replace(":", ""), "name": node.instance_id, "user": "record"}
                answer = await connection.command(f"register {json.dumps(request)}")
                if answer.code != 200:
                    raise RehearsalError(f"{node.instance_id} is refused: {answer.code} {answer.text}")
            await connection.ended()
        except (OSError, TimeoutError, ProtocolError, RehearsalError) as error:
            log.debug("record %s: %s", node.instance_id, error)  # the manager's service does not run yet
        finally:
            if connection is not None:
                connection.close()


async def _answer_pings(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await send(writer, GREETING + PROMPT)
        while (line := await read_line(reader)) is not None:
            await send(writer, encode(_OK if line == "ping" else _REFUSED) + PROMPT)
    except (ProtocolError, ConnectionError) as error:
        log.debug("a ping ended: %s", error)
    finally:
        writer.close()
