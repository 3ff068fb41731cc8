"""The manager's text protocol, byte by byte, over a real TCP connection."""

from __future__ import annotations

import asyncio
import re
from xml.etree import ElementTree

import pytest

from rehearsal.backburner.protocol import Answer, Connection, ProtocolError, encode, stamp


class Wire:
    """A client that knows only bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, farm, manager) -> Wire:
        await farm.wait_for_line(manager, "Manager ready")
        wire = cls(*await asyncio.open_connection(manager.address, 3234))
        assert (
            await wire.read(len(b"250 backburner 1.0 Ready.\r\nbackburner>"))
            == b"250 backburner 1.0 Ready.\r\nbackburner>"
        )
        return wire

    async def read(self, count: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(count), 2)

    async def say(self, command: bytes, prompt: bytes = b"backburner>") -> bytes:
        self.writer.write(command)
        line = await asyncio.wait_for(self.reader.readuntil(b"\r\n"), 2)
        body = b""
        if line.startswith(b"251 "):
            body = await self.read(int(line[4:]))
        assert await self.read(len(prompt)) == prompt
        return line + body

    async def xml(self, command: bytes) -> ElementTree.Element:
        reply = await self.say(command)
        head, _, body = reply.partition(b"\r\n")
        assert re.fullmatch(rb"251 \d+", head) and body[-1:] == b"\0"
        return ElementTree.fromstring(body[:-1])

    def close(self) -> None:
        self.writer.close()


def test_greeting_prompt_and_empty_lists(farm, play):
    async def story() -> None:
        manager = farm.machine(1)
        farm.start_manager(manager)
        wire = await Wire.open(farm, manager)
        expected = b"<?xml version='1.0' encoding='UTF-8'?>\n<ServerList />"
        assert await wire.say(b"get srvlist\r\n") == b"251 %d\r\n%s\0" % (len(expected) + 1, expected)
        assert (await wire.xml(b"get joblist\r\n")).tag == "JobList"
        assert list(await wire.xml(b"get jobhlist\r\n")) == []
        assert list(await wire.xml(b"get jobarchive\r\n")) == []
        assert [plugin[1].text for plugin in await wire.xml(b"get pluglist\r\n")] == ["3dsmax", "cmdjob"]
        wire.close()

    play(story())


def test_manager_info_by_position(farm, play):
    async def story() -> None:
        manager = farm.machine(1, mac="02:aa:00:00:00:01", name="MANAGER")
        farm.start_manager(manager)
        wire = await Wire.open(farm, manager)
        root = await wire.xml(b"get mgrinfo\r\n")
        assert (int(root[0].text), int(root[1].text), int(root[2].text)) == (200, 0, 0)
        system = [item.text for item in root[3]]
        assert system[5:7] == ["MANAGER", "02:AA:00:00:00:01"] and system[8] == manager.address and len(system) == 9
        assert len(root[4]) == 5 and re.fullmatch(r"\d{4}/\d\d/\d\d-\d\d:\d\d:\d\d:\d{4}\+00", root[4][4].text)
        clients = await wire.xml(b"get clientlist\r\n")
        assert [client[2].text for client in clients] == ["0"] and len(clients[0][3]) == 9
        wire.close()

    play(story())


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (b"get something\r\n", b"500"),
        (b"help\r\n", b"500"),
        (b"\r\n", b"500"),
        (b"get jobinfo 1\r\n", b"504"),
        (b"get jobinfo 0000ABCD\r\n", b"504"),
        (b"get jobstate -1\r\n", b"504"),
        (b"get server 002590A4C7A60000\r\n", b"504"),
        (b"del job 1\r\n", b"503"),
        (b"set jobstate 1 4\r\n", b"503"),
        (b"del server 002590A4C7A60000\r\n", b"503"),
        (b"register nothing\r\n", b"501"),
        (b"register [1]\r\n", b"501"),
        (b'register {"name": "x"}\r\n', b"501"),
        (b'register {"name": "x", "mac": "12"}\r\n', b"501"),
        (b'submit {"name": "x"}\r\n', b"501"),
        (b'submit {"name": "a/b", "first": 1, "last": 2, "seconds": 1, "output": "C:\\\\x.exr"}\r\n', b"501"),
        (b'submit {"name": "x", "first": 3, "last": 2, "seconds": 1, "output": "C:\\\\x.exr"}\r\n', b"501"),
        (b'report {"server": "002590A4C7A60000", "job": 1, "frame": 1}\r\n', b"503"),
    ],
)
def test_refusals_have_a_code_and_leave_the_connection_usable(farm, play, command: bytes, code: bytes):
    async def story() -> None:
        manager = farm.machine(1)
        farm.start_manager(manager)
        wire = await Wire.open(farm, manager)
        assert (await wire.say(command))[:4] == code + b" "
        assert (await wire.say(b"get srvlist\r\n")).startswith(b"251 ")
        wire.close()

    play(story())


def test_one_controller_at_a_time_and_its_prompt(farm, play):
    async def story() -> None:
        manager = farm.machine(1)
        farm.start_manager(manager)
        first, second = await Wire.open(farm, manager), await Wire.open(farm, manager)
        controller = b"backburner(Controller)>"
        assert (await first.say(b"new controller\r\n", controller)).startswith(b"201 ")
        assert (await second.say(b"new controller\r\n")).startswith(b"503 ")
        assert (await second.say(b"del job 1\r\n")).startswith(b"503 ")
        assert (await first.say(b"del job 1\r\n", controller)).startswith(b"504 ")
        assert await first.say(b"del controller No\r\n") == b"200 OK\r\n"
        assert (await second.say(b"new controller\r\n", controller)).startswith(b"201 ")
        second.close()
        await asyncio.sleep(0.02)
        assert (await first.say(b"new controller\r\n", controller)).startswith(b"201 ")
        first.close()

    play(story())


def test_a_silent_controller_loses_control(farm, play):
    async def story() -> None:
        manager = farm.machine(1)
        farm.start_manager(manager)
        first, second = await Wire.open(farm, manager), await Wire.open(farm, manager)
        await first.say(b"new controller\r\n", b"backburner(Controller)>")
        await asyncio.sleep(0.15)  # ten seconds, scaled
        assert (await second.say(b"new controller\r\n", b"backburner(Controller)>")).startswith(b"201 ")
        assert (await first.say(b"del job 1\r\n")).startswith(b"503 ")
        first.close()
        second.close()

    play(story())


def test_commands_may_come_in_pieces_and_replies_do(farm, play):
    async def story() -> None:
        manager = farm.machine(1)
        farm.start_manager(manager)
        wire = await Wire.open(farm, manager)
        for number in range(40):
            job = (
                b'submit {"name": "job %02d", "first": 1, "last": 2, "seconds": 1, "output": "C:\\\\o.exr"}\r\n'
                % number
            )
            for part in (job[:5], job[5:20], job[20:]):
                wire.writer.write(part)
                await asyncio.sleep(0)
            assert (await wire.say(b""))[:4] == b"200 "
        wire.writer.write(b"get joblist\r\n")
        pieces = []
        while not b"".join(pieces).endswith(b"backburner>"):
            pieces.append(await asyncio.wait_for(wire.reader.read(65536), 2))
        assert len(pieces) > 1
        head, _, rest = b"".join(pieces).partition(b"\r\n")
        body = rest[: int(head.split()[1])]
        assert len(ElementTree.fromstring(body[:-1])) == 40 and rest[len(body) :] == b"backburner>"
        wire.close()

    play(story())


def test_two_commands_in_one_packet_get_two_replies(farm, play):
    async def story() -> None:
        manager = farm.machine(1)
        farm.start_manager(manager)
        wire = await Wire.open(farm, manager)
        wire.writer.write(b"help\r\nnew controller\r\n")
        expected = b"500 Unknown command\r\nbackburner>201 Controller granted\r\nbackburner(Controller)>"
        assert await wire.read(len(expected)) == expected
        wire.close()

    play(story())


def test_encoding_of_answers():
    assert encode(Answer(200, "OK")) == b"200 OK\r\n"
    assert encode(Answer(251, "", b"<a/>")) == b"251 5\r\n<a/>\0"
    assert stamp(None) == "" and stamp(0.5) == "1970/01/01-00:00:00:5000+00"


@pytest.mark.parametrize(
    ("served", "message"),
    [
        (b"220 ftp ready\r\n", "not Backburner"),
        (b"250 backburner 1.0 Ready.\r\n", "the connection ended"),
        (b"250 backburner 1.0 Ready.\r\nbackburner>hello\r\n", "no status line"),
        (b"250 backburner 1.0 Ready.\r\nbackburner>251 many\r\n", "251 without a length"),
        (b"250 backburner 1.0 Ready.\r\nbackburner>251 10\r\n<a/>", "6 bytes before the end"),
    ],
)
def test_the_client_refuses_what_is_no_manager(served: bytes, message: str):
    class Writer:
        def write(self, data: bytes) -> None: ...
        async def drain(self) -> None: ...

    async def story() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(served)
        reader.feed_eof()
        connection = Connection(reader, Writer())  # type: ignore[arg-type]
        await connection.greet()
        await connection.command("get srvlist")

    with pytest.raises(ProtocolError, match=message):
        asyncio.run(story())


def test_a_reply_without_xml_has_no_tree():
    with pytest.raises(ProtocolError, match="500 Unknown command"):
        Answer(500, "Unknown command").root()
