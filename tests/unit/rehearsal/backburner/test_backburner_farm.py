"""Manager and servers together: registration, identity, jobs, loss and return."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import time

import pytest

from rehearsal.backburner import SERVICE_PROGRAMS, jobs, service_programs
from rehearsal.backburner.client import Refused, main, manager_client
from rehearsal.backburner.host import write_file
from rehearsal.backburner.manager import SERVERS_FOLDER
from rehearsal.backburner.protocol import ABSENT, BUSY, COMPLETE, ERROR, IDLE, Connection
from rehearsal.backburner.settings import SETTINGS_FILE, add_section
from rehearsal.windows.errors import WindowsError

OUTPUT = r"C:\Render\shot.exr"


async def servers(farm, manager):
    async with manager_client(manager.address) as client:
        return await client.servers()


def test_a_server_registers_under_its_own_mac(farm, play):
    async def story() -> None:
        manager = farm.machine(1)
        node = farm.node(2, manager)
        node.edit(ServerName=node.address)
        farm.start_manager(manager)
        farm.start_server(node)
        await farm.wait_for_line(node, f"INF Registration to {manager.address} accepted")
        listed = await servers(farm, manager)
        assert [(s.handle, s.state, s.name) for s in listed] == [("0200000000020000", IDLE, node.address)]
        line = next(line for line in manager.backburner_log().splitlines() if "Successful Registration" in line)
        assert re.fullmatch(
            rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z INF Successful Registration: "
            rf"{node.address} \({node.address}\), handle 0200000000020000",
            line,
        )
        assert manager.files.exists(SERVERS_FOLDER + r"\0200000000020000.xml")
        async with manager_client(manager.address) as client:
            answer = await client.command("get server 0200000000020000")
        assert [item.text for item in answer.root()[0]][6:] == [node.address, "1"]

    play(story())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "ERR Manager not found: backburner.xml names none"),
        ("manager-of-nobody", "ERR Manager not found: host not found: manager-of-nobody"),
        ("127.0.0.2", "ERR Manager not found: 127.0.0.2 port 3234: connection refused"),
    ],
)
def test_without_the_right_manager_name_there_is_no_registration(farm, play, name: str, message: str):
    async def story() -> None:
        manager = farm.machine(1)
        node = farm.node(2, manager)
        node.edit(ManagerName=name)
        farm.start_manager(manager)
        farm.start_server(node)
        await farm.wait_for_line(node, message, count=2)  # it tries again
        assert await servers(farm, manager) == []
        assert "accepted" not in node.backburner_log()

    play(story())


def test_settings_are_read_at_the_start_only(farm, play):
    async def story() -> None:
        manager = farm.machine(1)
        node = farm.node(2, manager)
        node.edit(ManagerName="")
        farm.start_manager(manager)
        farm.start_server(node)
        await farm.wait_for_line(node, "ERR Manager not found")
        node.edit(ManagerName=manager.address)
        await farm.wait_for_line(node, "ERR Manager not found", count=4)
        assert "accepted" not in node.backburner_log()
        await farm.stop(node)
        farm.start_server(node)
        await farm.wait_for_line(node, "accepted")

    play(story())


def test_a_server_waits_for_a_manager_that_starts_later_and_for_one_that_restarts(farm, play):
    async def story() -> None:
        manager = farm.machine(1)
        node = farm.node(2, manager)
        farm.start_server(node)
        await farm.wait_for_line(node, "connection refused")
        farm.start_manager(manager)
        await farm.wait_for_line(node, "accepted")
        await farm.stop(manager)
        await farm.wait_for_line(node, f"WRN Connection to manager {manager.address} lost")
        farm.start_manager(manager)
        await farm.wait_for_line(node, "accepted", count=2)
        assert [s.state for s in await servers(farm, manager)] == [IDLE]

    play(story())


def test_a_clone_with_a_stale_file_registers_as_its_builder(farm, play):
    async def story() -> None:
        manager = farm.machine(1)
        builder = farm.machine(2, mac="02:b1:1d:e4:00:01", name="EC2AMAZ-BUILDER")
        farm.start_server(builder)
        await farm.wait_for_line(builder, "Manager not found")
        await farm.stop(builder)
        builder.edit(ManagerName=manager.address)
        node = farm.clone(builder, 3)
        farm.start_manager(manager)
        farm.start_server(node)
        await farm.wait_for_line(manager, "Successful Registration")
        listed = await servers(farm, manager)
        assert [(s.handle, s.name) for s in listed] == [(builder.handle, "EC2AMAZ-BUILDER")]
        assert node.handle not in manager.backburner_log()
        assert f"WRN host not found: EC2AMAZ-BUILDER; using the address it calls from, {node.address}" in (
            manager.backburner_log()
        )

    play(story())


def test_two_clones_with_one_mac_are_one_server_and_push_each_other_out(farm, play):
    async def story() -> None:
        manager = farm.machine(1)
        builder = farm.node(9, manager)
        builder.edit(ServerName="EC2AMAZ-BUILDER")
        clones = [farm.clone(builder, 2), farm.clone(builder, 3)]
        farm.start_manager(manager)
        for clone in clones:
            farm.start_server(clone)
        await farm.wait_for_line(manager, f"WRN Server {builder.handle} registers again", count=3)
        assert [s.handle for s in await servers(farm, manager)] == [builder.handle]
        for clone in clones:
            await farm.wait_for_line(clone, "WRN Connection to manager", count=1)

    play(story())


def test_the_manager_must_reach_the_server_before_it_accepts(farm, play):
    async def story() -> None:
        manager = farm.machine(1)
        node = farm.node(2, manager)
        node.edit(ServerName="127.0.0.3")  # a stale address: nobody listens there
        other = farm.node(4, manager)
        other.edit(ServerPort="3226")  # every server must use the port that the manager knows
        farm.start_manager(manager)
        farm.start_server(node)
        farm.start_server(other)
        for machine in (node, other):
            await farm.wait_for_line(machine, "ERR Error registering server: Host access error")
        await farm.wait_for_line(
            manager,
            "ERR Host access error: 127.0.0.3 (127.0.0.3) port 3233: connection refused",
        )
        assert await servers(farm, manager) == []

    play(story())


def test_broken_settings_and_a_taken_port_end_the_service_with_a_reason(farm):
    async def story() -> None:
        machine = farm.machine(1)
        write_file(machine.files, SETTINGS_FILE, b"<SystemConfiguration>")
        programs = service_programs(time_scale=0.01)
        for program in programs.values():
            with pytest.raises(WindowsError, match="not well-formed") as caught:
                await program(machine, "X")
            assert caught.value.code == 1067
        assert machine.backburner_log().count(" ERR Cannot start ") == 2
        machine.files.delete(SETTINGS_FILE)
        for port, program in ((3233, programs["serversvc.exe"]), (3234, programs["managersvc.exe"])):
            taken = await machine.platform.listen(port, None)  # type: ignore[arg-type]
            with pytest.raises(WindowsError, match=f"Error starting network subsystem.*port {port}"):
                await program(machine, "X")
            taken.close()

    asyncio.run(story())


def test_the_programs_are_named_after_their_executables():
    assert sorted(SERVICE_PROGRAMS) == ["managersvc.exe", "serversvc.exe"]


# ---------------------------------------------------------------------------------------------------------------- jobs


def test_a_job_is_rendered_by_all_servers_and_written_on_them(farm, play):
    async def story() -> None:
        manager = farm.machine(1)
        nodes = [farm.node(number, manager) for number in (2, 3, 4)]
        farm.start_manager(manager)
        for node in nodes:
            farm.start_server(node)
        for node in nodes:
            await farm.wait_for_line(node, "accepted")
        async with manager_client(manager.address) as client:
            handle = await client.submit(name="shot 1", first=1, last=9, seconds=0.05, output=OUTPUT)
            await farm.wait(lambda: any(node.processes for node in nodes))
            assert next(node.processes for node in nodes if node.processes) == ["maxadapter.adp.exe", "3dsmax.exe"]
            assert BUSY in {server.state for server in await client.servers()}
            await client.wait_for_job(handle, timeout=5, interval=0.01)
            job = (await client.command(f"get jobinfo {handle}")).root()
            assert {server.state for server in await client.servers()} == {IDLE}
        assert [job[0][position].text for position in (1, 2, 11, 12, 13)] == [str(handle), "shot 1", "9", "9", "UTF-8"]
        assert len(job[0]) == 14 and len(job[1]) == 12 and job[1][1].text == "Yes" and job[3][0].text == "3dsmax"
        written = [name for node in nodes for name in node.files.names(r"C:\Render")]
        assert sorted(written) == [f"shot{frame:04d}.exr" for frame in range(1, 10)]
        assert all(node.files.names(r"C:\Render") and not node.processes for node in nodes)
        assert rf"{handle:08X} shot 1" in manager.files.names(jobs.JOBS_FOLDER)

    play(story())


def test_frames_of_a_lost_server_are_rendered_by_another(farm, play):
    async def story() -> None:
        manager = farm.machine(1)
        first, second = farm.node(2, manager), farm.node(3, manager)
        farm.start_manager(manager)
        farm.start_server(first)
        await farm.wait_for_line(first, "accepted")
        async with manager_client(manager.address) as client:
            handle = await client.submit(name="shot", first=7, last=7, seconds=0.3, output=OUTPUT)
            await farm.wait_for_line(first, "frame 7 started")
            await farm.stop(first)
            await farm.wait_for_line(manager, "frame 7 of ip-" + first.address.replace(".", "-") + " requeued")
            assert [server.state for server in await client.servers()] == [ABSENT]
            assert not first.files.exists(r"C:\Render\shot0007.exr") and first.processes == []
            farm.start_server(second)
            await client.wait_for_job(handle, timeout=5, interval=0.01)
        assert second.files.exists(r"C:\Render\shot0007.exr")

    play(story())


def test_a_server_that_falls_silent_is_absent_after_all_retries(farm, play):
    """Its connection stays open (a cable that was pulled), only its port answers no more."""

    async def story() -> None:
        manager = farm.machine(1)
        mute = farm.machine(2)
        silent = False

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"250 backburner 1.0 Ready.\r\nbackburner>")
            while line := await reader.readline():
                if line.startswith(b"ping") and not silent:
                    writer.write(b"200 OK\r\nbackburner>")
            writer.close()

        listener = await mute.platform.listen(3233, serve)
        farm.start_manager(manager)
        await farm.wait_for_line(manager, "Manager ready")
        connection = Connection(*await mute.platform.connect(manager.address, 3234))
        await connection.greet()
        registration = json.dumps({"mac": "02:00:00:00:00:02", "name": mute.address})
        assert (await connection.command(f"register {registration}")).code == 200
        await asyncio.sleep(0.5)
        assert [server.state for server in await servers(farm, manager)] == [IDLE]
        silent = True
        began = time.monotonic()
        await farm.wait_for_line(manager, "is down: no answer to 6 pings; put off-line")
        assert time.monotonic() - began > 6 * 20 * 0.01 * 0.9
        async with manager_client(manager.address) as client:
            assert [server.state for server in await client.servers()] == [ABSENT]
            await client.control()
            await client.delete_server(mute.handle)
            assert await client.servers() == []
        assert manager.files.names(SERVERS_FOLDER) == []
        connection.close()
        listener.close()

    play(story())


def test_a_server_that_was_cut_off_registers_again_by_itself(farm, play):
    """No packet told it that the manager had given it up: its own pings stay unanswered."""

    async def story() -> None:
        manager = farm.machine(1)
        node = farm.node(2, manager)
        node.edit(AckTimeout="5")
        cable = farm.cable(node)
        farm.start_manager(manager)
        await farm.wait_for_line(manager, "Manager ready")
        farm.start_server(node)
        await farm.wait_for_line(node, "accepted")
        cable.plugged = False
        await farm.wait_for_line(manager, "is down: no answer to 6 pings; put off-line")
        assert [server.state for server in await servers(farm, manager)] == [ABSENT]
        await farm.wait_for_line(node, "lost: no answer to 6 pings")
        await farm.wait_for_line(node, "port 3234: timeout")
        cable.plugged = True
        await farm.wait_for_line(node, "accepted", count=2)
        assert [server.state for server in await servers(farm, manager)] == [IDLE]

    play(story())


def test_a_present_server_cannot_be_deleted(farm, play):
    async def story() -> None:
        manager = farm.machine(1)
        node = farm.node(2, manager)
        farm.start_manager(manager)
        farm.start_server(node)
        await farm.wait_for_line(node, "accepted")
        async with manager_client(manager.address) as client:
            await client.control()
            with pytest.raises(Refused, match="505 Only absent servers"):
                await client.delete_server(node.handle)

    play(story())


def test_the_queue_and_the_known_servers_survive_a_restart(farm, play):
    async def story() -> None:
        manager = farm.machine(1)
        node = farm.node(2, manager)
        farm.start_manager(manager)
        farm.start_server(node)
        await farm.wait_for_line(node, "accepted")
        async with manager_client(manager.address) as client:
            long = await client.submit(name="long", first=1, last=4, seconds=0.1, output=OUTPUT, priority=10)
            held = await client.submit(name="held", first=1, last=4, seconds=0.1, output=OUTPUT)
            await client.control()
            await client.set_job_state(held, 4)
            await farm.wait_for_line(node, "frame 2 started")
        await farm.stop(node)
        await farm.stop(manager)
        farm.start_manager(manager)
        await farm.wait_for_line(manager, "Manager ready", count=2)
        async with manager_client(manager.address) as client:
            assert [(job.handle, job.name, job.state) for job in await client.jobs()] == [
                (long, "long", 1),
                (held, "held", 4),
            ]
            assert [server.state for server in await client.servers()] == [ABSENT]
            node.files.delete(r"C:\Render\shot0001.exr")
            farm.start_server(node)
            await client.wait_for_job(long, timeout=5, interval=0.01)
            assert not node.files.exists(r"C:\Render\shot0001.exr")  # it was finished before the restart
            await client.control()
            await client.set_job_state(held, 1)
            await client.wait_for_job(held, timeout=5, interval=0.01)

    play(story())


def test_a_deleted_job_stops_at_once(farm, play):
    async def story() -> None:
        manager = farm.machine(1)
        node = farm.node(2, manager)
        farm.start_manager(manager)
        farm.start_server(node)
        await farm.wait_for_line(node, "accepted")
        async with manager_client(manager.address) as client:
            handle = await client.submit(name="endless", first=1, last=1, seconds=60, output=OUTPUT)
            await farm.wait_for_line(node, "frame 1 started")
            await client.control()
            await client.delete_job(handle)
            await farm.wait_for_line(node, "frame 1 stopped: cancelled by the manager")
            assert await client.jobs() == [] and node.processes == []
            follow_up = await client.submit(name="next", first=1, last=1, seconds=0.01, output=OUTPUT)
            await client.wait_for_job(follow_up, timeout=5, interval=0.01)
        assert [name[9:] for name in manager.files.names(jobs.JOBS_FOLDER)] == ["next"]

    play(story())


def test_a_task_from_anybody_but_the_manager_is_refused(farm, play):
    async def story() -> None:
        manager = farm.machine(1)
        node = farm.node(2, manager)
        stranger = farm.machine(3)
        farm.start_manager(manager)
        farm.start_server(node)
        await farm.wait_for_line(node, "accepted")
        connection = Connection(*await stranger.platform.connect(node.address, 3233))
        await connection.greet()
        task = json.dumps({"job": 1, "name": "x", "frame": 1, "seconds": 0, "output": OUTPUT})
        assert (await connection.command(f"run {task}")).text == "Not my manager"
        assert (await connection.command("cancel 1")).text == "Not my manager"
        assert (await connection.command("ping")).code == 200
        assert (await connection.command("dance")).code == 500
        connection.close()
        report = json.dumps({"server": node.handle, "job": 1, "frame": 1})
        connection = Connection(*await stranger.platform.connect(manager.address, 3234))
        await connection.greet()
        assert (await connection.command(f"report {report}")).text == "Not a registered server"
        connection.close()
        assert f"WRN run from {stranger.address} refused" in node.backburner_log()

    play(story())


def test_a_frame_that_cannot_be_written_is_tried_again_and_then_left_to_others(farm, play):
    async def story() -> None:
        manager = farm.machine(1)
        broken, healthy = farm.node(2, manager), farm.node(3, manager)
        farm.start_manager(manager)
        farm.start_server(broken)
        await farm.wait_for_line(broken, "accepted")
        broken.files.write_bytes(r"C:\Render", b"a file where the folder should be")
        async with manager_client(manager.address) as client:
            handle = await client.submit(name="shot", first=1, last=2, seconds=0, output=OUTPUT)
            await farm.wait_for_line(manager, "frame 1 failed on")
            assert [server.state for server in await client.servers()] == [ERROR]
            await farm.wait_for_line(manager, "frame 1 failed on", count=4)  # once and three retries
            await asyncio.sleep(0.5)
            assert manager.backburner_log().count("failed on") == 4
            farm.start_server(healthy)
            await client.wait_for_job(handle, timeout=5, interval=0.01)
        assert healthy.files.names(r"C:\Render") == ["shot0001.exr", "shot0002.exr"]

    play(story())


def test_a_job_uses_no_more_servers_than_the_limit(farm, play):
    async def story() -> None:
        manager = farm.machine(1)
        nodes = [farm.node(number, manager) for number in (2, 3, 4)]
        farm.start_manager(manager)
        await farm.wait_for_line(manager, "Manager ready")
        await farm.stop(manager)
        manager.edit(UseServerLimit="1", ServerLimit="2")
        farm.start_manager(manager)
        for node in nodes:
            farm.start_server(node)
        for node in nodes:
            await farm.wait_for_line(node, "accepted")
        async with manager_client(manager.address) as client:
            await client.submit(name="shot", first=1, last=9, seconds=1, output=OUTPUT)
            await asyncio.sleep(0.1)
            assert sorted(server.state for server in await client.servers()) == [IDLE, BUSY, BUSY]

    play(story())


def test_a_server_on_the_managers_own_machine_works_over_localhost(farm, play):
    async def story() -> None:
        both = farm.machine(1)
        farm.start_manager(both)
        await farm.wait_for_line(both, "Manager ready")
        both.files.write_bytes(SETTINGS_FILE, add_section(both.settings, both, "ServerSettings"))
        both.edit(ManagerName="localhost")
        farm.start_server(both)
        await farm.wait_for_line(both, "accepted")

    play(story())


def test_an_unreadable_job_or_server_file_is_named(farm):
    machine = farm.machine(1)
    write_file(machine.files, jobs.JOBS_FOLDER + r"\0000000A shot\0000000A.xml", b"<Job/>")
    with pytest.raises(jobs.JobError, match=r"0000000A\.xml cannot be read.*delete the folder"):
        list(jobs.load(machine.files))
    machine.files.delete(jobs.JOBS_FOLDER)
    write_file(machine.files, SERVERS_FOLDER + r"\x.xml", b"<Server/>")
    with pytest.raises(WindowsError, match=r"x\.xml cannot be read.*forget that server"):
        asyncio.run(service_programs()["managersvc.exe"](machine, "X"))


def test_a_full_disk_under_the_log_does_not_stop_the_service(farm, play, monkeypatch):
    async def story() -> None:
        manager = farm.machine(1)

        def full(path: str, content: bytes) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(manager.files, "append_bytes", full)
        farm.start_manager(manager)
        await farm.wait(lambda: any("Manager ready" in message for message in manager.messages))
        assert "No space left on device" in manager.messages[0]

    play(story())


def test_the_command_line_client(farm, play, capsys):
    async def story() -> None:
        manager = farm.machine(1)
        node = farm.node(2, manager)
        farm.start_manager(manager)
        farm.start_server(node)
        await farm.wait_for_line(node, "accepted")

        async def call(*arguments: str) -> int:
            return await asyncio.to_thread(main, [manager.address, *arguments])

        submit = ["submit", "--name", "a", "--seconds", "0.01", "--output", OUTPUT]
        assert await call(*submit, "--frames", "1-3", "--wait", "5") == 0
        handle = json.loads(capsys.readouterr().out)["job"]
        assert await call("servers") == 0
        assert json.loads(capsys.readouterr().out)[0]["state"] == "idle"
        assert await call("jobs") == 0
        assert json.loads(capsys.readouterr().out) == [{"handle": handle, "name": "a", "state": "complete"}]
        for command in ("suspend", "resume", "delete"):
            assert await call(command, str(handle)) == 0
        assert await call("delete", str(handle)) == 1
        assert "504 Invalid handle" in capsys.readouterr().err
        assert await call("submit", "--name", "b", "--output", OUTPUT, "--frames", "one") == 1
        assert await call(*submit, "--seconds", "9", "--frames", "1", "--wait", "0.1") == 1
        assert "not complete" in capsys.readouterr().err
        await farm.stop(manager)
        assert await call("servers") == 1

    play(story())


def test_fifty_servers_in_one_loop(farm, play):
    async def story() -> None:
        farm.scale = 0.2  # a server that a busy machine keeps waiting is not down yet
        manager = farm.machine(1)
        nodes = [farm.node(number, manager) for number in range(2, 52)]
        began, cpu = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
        farm.start_manager(manager)
        for node in nodes:
            farm.start_server(node)
        async with manager_client_when_ready(farm, manager) as client:
            while [server.state for server in await client.servers()].count(IDLE) < 50:
                assert time.monotonic() - began < 10
                await asyncio.sleep(0.02)
            assert len({server.handle for server in await client.servers()}) == 50
            handle = await client.submit(name="shot", first=1, last=200, seconds=0.05, output=OUTPUT)
            await client.wait_for_job(handle, timeout=20, interval=0.05)
            assert [job.state for job in await client.jobs()] == [COMPLETE]
        assert sum(len(node.files.names(r"C:\Render")) for node in nodes) == 200
        assert "is down" not in manager.backburner_log() and "failed on" not in manager.backburner_log()
        assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - cpu < 10

    play(story())


class manager_client_when_ready:
    """Opens the client once the manager listens."""

    def __init__(self, farm, manager) -> None:
        self.farm, self.manager = farm, manager

    async def __aenter__(self):
        await self.farm.wait_for_line(self.manager, "Manager ready")
        self.client = manager_client(self.manager.address)
        return await self.client.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        await self.client.__aexit__(*error)
