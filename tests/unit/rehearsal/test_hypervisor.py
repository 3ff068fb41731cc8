"""Machines follow what EC2 says (networks and hosts are made up)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

import pytest

from rehearsal import boot_times, faults
from rehearsal import hypervisor as module
from rehearsal.hypervisor import Hypervisor, Step, machine_name, next_step
from rehearsal.interfaces import CallRecord, CloudView, ImageView, InstanceView, RehearsalError
from rehearsal.machine import Machine, MachinePlatform, MachineState
from rehearsal.network.topology import Network
from rehearsal.windows.programs import python
from tests.unit.rehearsal.views import IMAGE, instance, view

ID = "i-00000000000000001"


def machine(state: MachineState, *, boots_seen: int | None = 1, requested: Any = None) -> Machine:
    made = Machine("m", ID, Path("/nowhere"), instance=instance(1))
    made.state, made.boots_seen, made.requested = state, boots_seen, requested
    return made


@pytest.mark.parametrize(
    ("state", "ec2", "boots_seen", "expected"),
    [
        (MachineState.OFF, "running", None, Step.BOOT),
        (MachineState.OFF, "running", 1, Step.NOTHING),
        (MachineState.FAILED, "running", 1, Step.NOTHING),
        (MachineState.FAILED, "running", 0, Step.BOOT),
        (MachineState.DEAD, "running", 0, Step.BOOT),
        (MachineState.RUNNING, "running", 1, Step.NOTHING),
        (MachineState.RUNNING, "running", 0, Step.REBOOT),
        (MachineState.OFF, "pending", None, Step.NOTHING),
        (MachineState.RUNNING, "stopping", 1, Step.POWER_OFF),
        (MachineState.FAILED, "shutting-down", 1, Step.POWER_OFF),
        (MachineState.OFF, "stopped", 1, Step.NOTHING),
        (MachineState.RUNNING, "terminated", 1, Step.REMOVE),
        (MachineState.OFF, None, 1, Step.REMOVE),
    ],
)
def test_next_step(state: MachineState, ec2: str | None, boots_seen: int | None, expected: Step) -> None:
    now = instance(1, state=ec2) if ec2 else None
    assert next_step(machine(state, boots_seen=boots_seen), now) is expected


def test_a_guest_may_ask_for_power() -> None:
    running = instance(1)
    assert next_step(machine(MachineState.RUNNING, requested="shutdown"), running) is Step.GUEST_SHUTDOWN
    assert next_step(machine(MachineState.RUNNING, requested="reboot"), running) is Step.REBOOT
    assert next_step(machine(MachineState.OFF, requested="reboot"), running) is Step.NOTHING


@pytest.mark.parametrize(
    ("tags", "taken", "expected"),
    [
        ({"Name": "studio-manager"}, [], "studio-manager"),
        ({"Name": "studio-node"}, ["studio-node"], f"studio-node-{ID}"),
        ({"Name": "studio-node", "renderfarm:role": "render_node"}, [], f"studio-node-{ID}"),
        ({"Name": "studio-node", "renderfarm:role": "remote_node"}, [], f"studio-node-{ID}"),
        ({"Name": "studio-builder", "renderfarm:role": "builder"}, [], "studio-builder"),
        ({}, [], ID),
        ({"Name": "../../etc"}, [], "etc"),
        ({"Name": "a b/ü"}, [], "a-b"),
        ({"Name": "..."}, [], ID),
        ({"Name": "terminated"}, ["terminated"], f"terminated-{ID}"),
    ],
)
def test_names_are_unique_and_safe(tags: dict[str, str], taken: list[str], expected: str) -> None:
    assert machine_name(tags, ID, taken) == expected


class FakeCloud:
    """A region that does what the test says."""

    def __init__(self) -> None:
        self.calls: list[CallRecord] = []
        self.now = view()
        self.consoles: dict[str, bytes] = {}
        self.powered_off: list[str] = []
        self.images: dict[str, str | None] = {}

    def view(self) -> CloudView:
        return self.now

    def set(self, *instances: InstanceView, images: tuple[ImageView, ...] = (IMAGE,)) -> None:
        self.now = view(instances=instances, images=images)

    def on_change(self, callback: Callable[[], None]) -> None:
        pass

    def console_write(self, instance_id: str, data: bytes) -> None:
        self.consoles[instance_id] = self.console(instance_id) + data

    def console(self, instance_id: str) -> bytes:
        return self.consoles.get(instance_id, b"")

    def password_data(self, instance_id: str, password: str) -> None:
        pass

    def guest_power_off(self, instance_id: str) -> None:
        self.powered_off.append(instance_id)

    def image_ready(self, image_id: str, *, error: str | None = None) -> None:
        self.images[image_id] = error


class FakeNetwork:
    def __init__(self) -> None:
        self.plugged: list[str] = []
        self.guarded: list[str] = []

    async def sync(self, _view: CloudView) -> None:
        pass

    async def plug_instance(self, namespace: str, *_rest: object) -> None:
        self.plugged.append(namespace)

    plug_studio = plug_instance

    async def guard(self, namespace: str, *_rest: object) -> None:
        self.guarded.append(namespace)

    async def unplug(self, namespace: str, _card: object) -> None:
        if namespace in self.plugged:
            self.plugged.remove(namespace)


class FakeHost:
    """A host that only counts; ``behave`` may fail or wait at power-on."""

    made: list[FakeHost]
    behave: Callable[[FakeHost], Any]

    def __init__(self, root: Path, platform: MachinePlatform) -> None:
        self.root = root
        self.platform = platform
        self.computer_name = "FAKE"
        self.winrm_commands = 7
        self.events: list[str] = []
        self.settled = asyncio.Event()
        self.settled.set()

    async def power_on(self) -> None:
        self.events.append("on")
        await self.behave(self)

    async def booted(self) -> None:
        await self.settled.wait()

    async def power_off(self) -> None:
        self.events.append("off")


class World:
    """A hypervisor with everything around it made up."""

    def __init__(self, folder: Path) -> None:
        self.cloud = FakeCloud()
        self.network = FakeNetwork()
        self.hosts: list[FakeHost] = []
        self.stock_made = 0
        self.behave: Callable[[FakeHost], Any] = lambda _host: asyncio.sleep(0)
        self.hypervisor = Hypervisor(
            folder,
            cast(Network, self.network),
            self.cloud,
            make_host=self._make_host,
            make_server_image=self._stock,
        )

    def _make_host(self, root: Path, platform: MachinePlatform) -> FakeHost:
        host = FakeHost(root, platform)
        host.behave = self.behave
        self.hosts.append(host)
        return host

    def _stock(self, target: Path) -> None:
        self.stock_made += 1
        (target / "c").mkdir()
        (target / "c" / "stock.txt").write_text("stock")
        (target / "host.json").write_text("{}")

    @property
    def machine(self) -> Machine:
        return self.hypervisor.machines[ID]

    async def settle(self) -> None:
        """Reconcile until nothing is under way."""
        for _ in range(20):
            await self.hypervisor.reconcile()
            tasks = [item.task for item in self.hypervisor.machines.values() if item.task and not item.task.done()]
            tasks += self.hypervisor._copies.values()
            if not tasks:
                return
            await asyncio.wait(tasks, timeout=5)
        raise AssertionError("the machines do not come to rest")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    async def nothing(_self: Hypervisor, _machine: Machine, *_more: str) -> None:
        pass

    monkeypatch.setattr(Hypervisor, "_serve_metadata", nothing)
    monkeypatch.setattr(Hypervisor, "_serve_names", nothing)
    monkeypatch.setattr(module.netns, "exists", lambda _name: False)
    monkeypatch.setattr(module, "_POWER_DELAY", 0.0)
    made: list[World] = []

    async def make() -> World:
        return World(tmp_path)

    made.append(asyncio.run(make()))
    return made[0]


def test_a_running_instance_boots_from_its_image(world: World, tmp_path: Path) -> None:
    async def run() -> None:
        world.cloud.set(instance(1, tags={"Name": "manager"}), instance(2, tags={"Name": "node"}))
        await world.settle()

    asyncio.run(run())
    assert world.machine.state is MachineState.RUNNING
    assert (tmp_path / "machines/manager/c/stock.txt").read_text() == "stock"
    assert (tmp_path / "machines/node/host.json").exists()
    assert world.stock_made == 1
    assert sorted(world.network.plugged) == [ID, "i-00000000000000002"]


def test_machines_boot_some_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine boots until what starts with it has done its first work."""
    monkeypatch.setattr(module, "_BOOT_SECONDS", 60.0)

    async def busy(host: FakeHost) -> None:
        host.settled.clear()

    async def run() -> None:
        world.behave = busy
        world.cloud.set(
            *(instance(number, tags={"Name": f"node{number}"}) for number in range(1, 2 + module.BOOT_LIMIT))
        )
        settling = asyncio.create_task(world.settle())
        async with asyncio.timeout(5):
            while len(world.hosts) < module.BOOT_LIMIT:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            assert len(world.hosts) == module.BOOT_LIMIT
            world.hosts[0].settled.set()
            await settling

    asyncio.run(run())
    assert len(world.hosts) == module.BOOT_LIMIT + 1


def test_with_records_render_nodes_are_only_registered(world: World) -> None:
    class Register:
        said: list[tuple[list[str], str | None]] = []  # noqa: RUF012

        async def sync(self, nodes: Any, manager: Machine | None) -> None:
            self.said.append(([node.instance_id for node in nodes], manager and manager.name))

    async def run() -> None:
        world.hypervisor._records = cast(Any, Register())
        node = instance(2, tags={"renderfarm:role": "render_node"})
        pending = instance(3, tags={"renderfarm:role": "render_node"}, state="pending")
        world.cloud.set(instance(1, tags={"Name": "manager", "renderfarm:role": "manager"}), node, pending)
        await world.settle()

    asyncio.run(run())
    assert list(world.hypervisor.machines) == [ID]
    assert Register.said[0] == (["i-00000000000000002"], None), "the manager does not run yet"
    assert Register.said[-1] == (["i-00000000000000002"], "manager")


def test_a_boot_that_raises_is_visible_and_not_repeated(world: World, tmp_path: Path) -> None:
    async def broken(_host: FakeHost) -> None:
        raise ValueError("no such wire")

    async def run() -> None:
        world.behave = broken
        world.cloud.set(instance(1, tags={"Name": "m"}))
        await world.settle()
        await world.settle()

    asyncio.run(run())
    assert (world.machine.state, world.machine.error) == (MachineState.FAILED, "no such wire")
    assert "Traceback" in (tmp_path / "machines/m/machine.log").read_text()
    assert len(world.hosts) == 1
    assert world.network.plugged == []


def test_stop_keeps_the_disk_and_start_boots_from_it(world: World, tmp_path: Path) -> None:
    async def run() -> None:
        world.cloud.set(instance(1, tags={"Name": "m"}))
        await world.settle()
        (tmp_path / "machines/m/c/own.txt").write_text("own")
        world.cloud.set(instance(1, state="stopping"))
        await world.settle()
        assert world.machine.state is MachineState.OFF
        assert world.network.plugged == []
        world.cloud.set(instance(1, state="running", boots=2))
        await world.settle()

    asyncio.run(run())
    assert world.machine.state is MachineState.RUNNING
    assert (tmp_path / "machines/m/c/own.txt").exists()
    assert [host.events for host in world.hosts] == [["on", "off"], ["on"]]
    assert world.machine.commands == 14


def test_terminate_keeps_only_the_logs(world: World, tmp_path: Path) -> None:
    async def run() -> None:
        world.cloud.set(instance(1, tags={"Name": "m"}))
        await world.settle()
        world.hosts[0].platform.serial(b"hello")
        world.cloud.set(instance(1, state="terminated"))
        await world.settle()

    asyncio.run(run())
    assert world.hypervisor.machines == {}
    assert not (tmp_path / "machines/m").exists()
    kept = tmp_path / "machines/terminated" / f"m-{ID}"
    assert (kept / "console.log").read_bytes() == b"hello"
    assert "terminated" in (kept / "machine.log").read_text()
    assert world.cloud.console(ID) == b"hello"
    assert world.network.plugged == []


def test_termination_interrupts_a_boot(world: World) -> None:
    async def run() -> None:
        world.behave = lambda _host: asyncio.sleep(3600)
        world.cloud.set(instance(1))
        await world.hypervisor.reconcile()
        await asyncio.sleep(0.1)
        assert world.machine.state is MachineState.BOOTING
        world.cloud.set(instance(1, state="shutting-down"))
        await world.settle()

    asyncio.run(run())
    assert world.machine.state is MachineState.OFF
    assert world.hosts[0].events == ["on", "off"]


def test_reboot_through_the_api(world: World) -> None:
    async def run() -> None:
        world.cloud.set(instance(1))
        await world.settle()
        world.cloud.set(instance(1, boots=2))
        await world.settle()

    asyncio.run(run())
    assert [host.events for host in world.hosts] == [["on", "off"], ["on"]]


def test_a_guest_shuts_itself_down(world: World) -> None:
    async def run() -> None:
        world.cloud.set(instance(1))
        await world.settle()
        world.hosts[0].platform.power("shutdown")
        await asyncio.sleep(0.01)
        await world.settle()

    asyncio.run(run())
    assert world.cloud.powered_off == [ID]
    assert world.machine.state is MachineState.OFF


def test_a_clock_that_is_off_counts_from_the_next_boot_until_it_is_repaired(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.netns, "inside", lambda _name, argv: list(argv))
    program = [sys.executable, "-I", "-c", "import os; print(os.environ.get('DATEFUDGE'))"]
    seen: list[bytes] = []

    async def ask() -> None:
        seen.append((await world.hosts[-1].platform.spawn(program, env={}, cwd=tmp_path)).stdout.strip())

    async def run() -> None:
        world.cloud.set(instance(1, tags={"Name": "m"}))
        await world.settle()
        monkeypatch.setattr(faults.shutil, "which", lambda _name: "/usr/bin/datefudge")
        context = faults.Context(world.hypervisor, world.cloud, set())  # type: ignore[arg-type]
        assert "3600 s behind" in await faults.inject(context, "clock-off", ["m", "-3600"])
        await ask()
        for boots in (2, 3):
            world.cloud.set(instance(1, tags={"Name": "m"}, boots=boots))
            await world.settle()
            await ask()
            await world.hypervisor.repair(world.machine)
        for seconds in ("soon", "1.5", ""):
            with pytest.raises(RehearsalError, match="SECONDS is a whole number"):
                await faults.inject(context, "clock-off", ["m", seconds])
        monkeypatch.setattr(faults.shutil, "which", lambda _name: None)
        with pytest.raises(RehearsalError, match="apt-get install datefudge"):
            await faults.inject(context, "clock-off", ["m", "60"])

    asyncio.run(run())
    assert seen == [b"None", b"3600", b"None"]


BOOTS = """\
import json, os, sys
memory, done = sys.argv[1:]
def phase(name, event="booting"):
    with open(memory + ".new", "w") as file:
        json.dump({"boot": {"event": event, "phase": name}}, file)
    os.replace(memory + ".new", memory)
    with open(done, "a") as file:
        file.write(name + " ")
for name in ("role", "identity", "routes", "drives"):
    phase(name)
phase("registration", "ready")
"""


def test_power_goes_in_the_phase_of_the_next_boot_that_was_asked_for(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.netns, "inside", lambda _name, argv: list(argv))
    done, whole = tmp_path / "done", "role identity routes drives registration "

    async def boot() -> str:
        """The phases that a boot came through, which is over now or whose power was cut."""
        done.write_text("")
        memory = world.machine.disk / boot_times.STATE
        memory.parent.mkdir(parents=True, exist_ok=True)
        program = [sys.executable, "-I", "-S", "-c", python._BOOTSTRAP, "", "-c", BOOTS, str(memory), str(done)]
        process = asyncio.create_task(world.hosts[-1].platform.spawn(program, env={}, cwd=tmp_path))
        async with asyncio.timeout(20):
            while not process.done() and world.machine.state is not MachineState.DEAD:
                await asyncio.sleep(0.02)
        process.cancel()
        await asyncio.gather(process, return_exceptions=True)
        return done.read_text()

    async def rebooted(boots: int) -> str:
        world.cloud.set(instance(1, tags={"Name": "m"}, boots=boots))
        await world.settle()
        return await boot()

    async def run() -> None:
        world.cloud.set(instance(1, tags={"Name": "m"}))
        await world.settle()
        context = faults.Context(world.hypervisor, world.cloud, set())  # type: ignore[arg-type]
        await faults.inject(context, "power-cut", ["m", "drives"])
        assert await boot() == whole, "not yet: this boot began before"
        assert await rebooted(2) == "role identity routes "
        assert world.machine.state is MachineState.DEAD
        await faults.inject(context, "power-cut", ["m", "drives"])
        assert await rebooted(3) == "role identity routes ", "what the boot before left does not count"
        await world.hypervisor.repair(world.machine)
        await world.settle()
        assert await boot() == whole
        await faults.inject(context, "power-cut", ["m", "role"])
        await world.hypervisor.repair(world.machine)
        assert await rebooted(4) == whole, "lifted"
        with pytest.raises(RehearsalError, match="PHASE is a phase"):
            await faults.inject(context, "power-cut", ["m", "10"])
        await asyncio.gather(*context.background)

    asyncio.run(run())


@pytest.mark.parametrize("called", ["m", f"m-{ID}", ID])
def test_an_injected_boot_failure_shows_on_the_console(world: World, called: str) -> None:
    """A node's name is not known before it is launched: then its tag Name means the next one."""

    async def run() -> None:
        world.hypervisor.boot_failures.add(called)
        world.cloud.set(instance(1, tags={"Name": "m", "renderfarm:role": "render_node"}))
        await world.settle()

    asyncio.run(run())
    assert world.machine.state is MachineState.FAILED
    assert b"INACCESSIBLE_BOOT_DEVICE" in world.cloud.console(ID)
    assert world.hosts == []


def pending_image(source: str) -> ImageView:
    return ImageView("ami-own", "own", "eu-central-1", source, "windows", "pending")


def test_an_image_is_the_disk_of_its_stopped_source(world: World, tmp_path: Path) -> None:
    async def run() -> None:
        world.cloud.set(instance(1, tags={"Name": "m"}))
        await world.settle()
        world.cloud.set(instance(1, state="stopped"), images=(IMAGE, pending_image(ID)))
        await world.settle()
        done = replace(pending_image(ID), state="available")
        world.cloud.set(instance(1, state="terminated"), instance(2, image_id="ami-own"), images=(IMAGE, done))
        await world.settle()

    asyncio.run(run())
    assert world.cloud.images == {"ami-own": None}
    assert (tmp_path / "images/ami-own/c/stock.txt").exists()
    assert world.hypervisor.machines["i-00000000000000002"].state is MachineState.RUNNING


@pytest.mark.parametrize(("boots", "events"), [(2, [["on", "off"], ["on"]]), (1, [["on"]])])
def test_a_running_source_is_rebooted_for_its_image_when_ec2_says_so(
    world: World, tmp_path: Path, boots: int, events: list[list[str]]
) -> None:
    async def run() -> None:
        world.cloud.set(instance(1))
        await world.settle()
        world.cloud.set(instance(1, boots=boots), images=(IMAGE, pending_image(ID)))
        await world.settle()

    asyncio.run(run())
    assert [host.events for host in world.hosts] == events
    assert world.machine.state is MachineState.RUNNING
    assert (tmp_path / "images/ami-own/c/stock.txt").exists()


def test_an_image_without_a_source_fails(world: World) -> None:
    async def run() -> None:
        world.cloud.set(images=(IMAGE, pending_image("i-gone")))
        await world.settle()

    asyncio.run(run())
    assert world.cloud.images == {"ami-own": "the disk of i-gone does not exist"}


def test_the_disk_of_a_deregistered_image_is_removed(world: World, tmp_path: Path) -> None:
    async def run() -> None:
        world.cloud.set(instance(1))
        await world.settle()
        assert (tmp_path / "images/ami-1").exists()
        world.cloud.set(instance(1), images=())
        await world.settle()

    asyncio.run(run())
    assert not (tmp_path / "images/ami-1").exists()


def test_security_groups_are_applied_again_only_when_something_changed(world: World) -> None:
    async def run() -> None:
        world.cloud.set(instance(1))
        await world.settle()
        world.network.guarded.clear()
        await world.hypervisor.reconcile()
        assert world.network.guarded == []
        world.cloud.set(instance(1), instance(2))
        await world.settle()
        assert ID in world.network.guarded

    asyncio.run(run())


def test_groups_that_changed_during_a_boot_are_applied_after_it(world: World) -> None:
    async def run() -> None:
        await world.settle()
        world.cloud.set(instance(1))
        await world.settle()

    asyncio.run(run())
    assert world.network.guarded == [ID]


def test_a_machine_without_power_boots_again_when_repaired(world: World) -> None:
    async def run() -> None:
        world.cloud.set(instance(1))
        await world.settle()
        await world.hypervisor.cut_power(world.machine)
        await world.settle()
        assert world.machine.state is MachineState.DEAD
        await world.hypervisor.repair(world.machine)
        await world.settle()

    asyncio.run(run())
    assert world.machine.state is MachineState.RUNNING


def test_a_studio_machine_boots_once_and_by_its_own_wish(world: World) -> None:
    async def run() -> None:
        world.cloud.set()
        made = world.hypervisor.studio_machine("workstation", IPv4Address("192.168.1.10"), world._stock)
        world.hypervisor.add(made)
        await world.settle()
        world.hosts[0].platform.power("reboot")
        await asyncio.sleep(0.01)
        await world.settle()
        world.hosts[1].platform.power("shutdown")
        await asyncio.sleep(0.01)
        await world.settle()

    asyncio.run(run())
    assert world.hypervisor.machines["workstation"].state is MachineState.OFF
    assert [host.events for host in world.hosts] == [["on", "off"], ["on", "off"]]
    assert world.cloud.powered_off == []


def test_an_unknown_machine_is_named_with_those_that_are_there(world: World) -> None:
    asyncio.run(world.settle())
    with pytest.raises(RehearsalError, match="there is no machine gone; machines: "):
        world.hypervisor.find("gone")
