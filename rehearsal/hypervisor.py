"""Makes machines of instances and keeps them as EC2 says: the loop that looks, compares and acts.

It is level-triggered: each round compares the cloud's records with the machines and takes at most one step for each
machine; a step that fails is visible and the next round starts from what is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import shutil
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import Enum, auto
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

from rehearsal import boot_times, disks, imds, vpc_dns
from rehearsal.interfaces import CloudApi, CloudView, ImageView, InstanceView, RehearsalError
from rehearsal.machine import Host, Machine, MachinePlatform, MachineState, PowerAction
from rehearsal.network import filters, http, netns, plan
from rehearsal.network.topology import Network
from rehearsal.records import Records

log = logging.getLogger(__name__)

BOOT_LIMIT = 4  # machines that boot at the same time: more would only share the processors, which real ones do not
_BOOT_SECONDS = 3.0  # a machine that waits for another one does not keep others from booting for longer
_TICK_SECONDS = 0.5  # states of instances follow the clock: look again after this time at the latest
_GATHER_SECONDS = 0.03  # changes that come together are looked at together
_POWER_DELAY = 0.2  # seconds between a guest's request and the power going: its last answer gets out
_POWER_OFF_LIMIT = 20.0
_CLOSE_LIMIT = 5.0
_WINRM_PORTS = (5985, 5986)
_NUMEROUS = ("render_node", "remote_node")  # roles of which a farm has many machines
_ROLE = "renderfarm:role"

HostFactory = Callable[[Path, MachinePlatform], Host]
ImageFactory = Callable[[Path], None]


class Step(Enum):
    """What has to be done with a machine next."""

    NOTHING = auto()
    BOOT = auto()
    REBOOT = auto()
    POWER_OFF = auto()
    GUEST_SHUTDOWN = auto()
    REMOVE = auto()


def next_step(machine: Machine, instance: InstanceView | None) -> Step:
    """Decide from what is and what should be; ``instance`` is None when EC2 does not know it any more.

    A machine boots once for each time that EC2 started or rebooted it, however that boot ended.
    """
    if instance is None or instance.state == "terminated":
        return Step.REMOVE
    if instance.state in ("stopping", "stopped", "shutting-down"):
        return Step.NOTHING if machine.state is MachineState.OFF else Step.POWER_OFF
    if instance.state == "running":
        if machine.boots_seen != instance.boots:
            return Step.REBOOT if machine.state is MachineState.RUNNING else Step.BOOT
        return requested_step(machine)
    return Step.NOTHING


def requested_step(machine: Machine) -> Step:
    """The step that the guest itself asked for."""
    if machine.state is not MachineState.RUNNING or machine.requested is None:
        return Step.NOTHING
    return Step.REBOOT if machine.requested == "reboot" else Step.GUEST_SHUTDOWN


def machine_name(tags: Mapping[str, str], instance_id: str, taken: Iterable[str]) -> str:
    """The name of a new machine: its tag Name; with the instance id where that is missing, taken or no file name.

    Nodes, which share a name, always have their instance id in it, as the farm's inventory calls them.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", tags.get("Name", "")).strip("-.")
    if not name:
        return instance_id
    alone = tags.get(_ROLE) not in _NUMEROUS and name not in set(taken)
    return name if alone else f"{name}-{instance_id}"


class BootFailure(RehearsalError):
    """A boot failed because a fault was injected."""


class Hypervisor:
    """The machines of one rehearsal."""

    def __init__(
        self,
        folder: Path,
        network: Network,
        cloud: CloudApi,
        *,
        make_host: HostFactory,
        make_server_image: ImageFactory,
        changed: Callable[[], None] = lambda: None,
        records: Records | None = None,
    ) -> None:
        """``make_host`` puts an operating system on a machine's folder; ``make_server_image`` writes the disk of a
        stock Windows Server into a folder; ``changed`` is called when what ``machines`` shows changed; with
        ``records`` render nodes get no machine but are only registered."""
        self.folder = folder
        self.network = network
        self.cloud = cloud
        self.machines: dict[str, Machine] = {}
        self.terminated: list[str] = []
        self.boot_failures: set[str] = set()
        self.late_metadata: dict[str, float] = {}
        self.problem = ""
        self._make_host = make_host
        self._make_server_image = make_server_image
        self._changed = changed
        self._records = records
        self._boot_limit = asyncio.Semaphore(BOOT_LIMIT)
        self._booting: set[asyncio.Task[None]] = set()
        self._image_locks: dict[str, asyncio.Lock] = {}
        self._copies: dict[str, asyncio.Task[None]] = {}
        self._copied: set[str] = set()  # EC2 may call an image pending for a while after that
        self._wake = asyncio.Event()
        self._view = CloudView((), (), (), {})
        self._guarded: tuple[object, ...] = ()
        for part in ("machines", "machines/terminated", "images"):
            (folder / part).mkdir(parents=True, exist_ok=True)

    # ------------------------------------------------------------------------------------------------------- the loop

    async def run(self) -> None:
        """Reconcile until cancelled."""
        loop = asyncio.get_running_loop()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._wake.set)

        self.cloud.on_change(wake)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._wake.wait()
                await asyncio.sleep(_GATHER_SECONDS)
            self._wake.clear()
            try:
                await self.reconcile()
                self.problem = ""
            except Exception as error:
                if str(error) != self.problem:
                    log.exception("reconciling failed")
                self.problem = str(error) or repr(error)
                self._changed()

    async def reconcile(self) -> None:
        """One round: networks, security groups, images, then one step for each machine."""
        self._view = view = self.cloud.view()
        instances = {instance.instance_id: instance for instance in view.instances}
        await self.network.sync(view)
        for instance in view.instances:
            machine = self.machines.get(instance.instance_id)
            if machine is None and instance.state == "running" and not self._is_record(instance):
                machine = self._new_machine(instance)
            if machine is not None:
                machine.instance = instance
        await self._guard(view)
        self._images(view)
        for machine in list(self.machines.values()):
            current = instances.get(machine.key)
            if machine.busy:
                self._interrupt_boot(machine, current)
            elif machine.instance is None:
                self._begin(machine, self._studio_step(machine))
            else:
                self._begin(machine, next_step(machine, current))
        if self._records is not None:
            nodes = [item for item in view.instances if self._is_record(item) and item.state == "running"]
            await self._records.sync(nodes, self._manager())

    def _is_record(self, instance: InstanceView) -> bool:
        return self._records is not None and instance.tags.get(_ROLE) == "render_node"

    def _manager(self) -> Machine | None:
        """The farm's manager, when it is up."""
        for machine in self.machines.values():
            if machine.instance is not None and machine.instance.tags.get(_ROLE) == "manager":
                return machine if machine.state is MachineState.RUNNING else None
        return None

    def _studio_step(self, machine: Machine) -> Step:
        return Step.BOOT if machine.boots_seen is None else requested_step(machine)

    def _new_machine(self, instance: InstanceView) -> Machine:
        taken = [machine.name for machine in self.machines.values()]
        name = machine_name(instance.tags, instance.instance_id, taken)
        folder = self.folder / "machines" / name
        folder.mkdir()
        machine = self.machines[instance.instance_id] = Machine(name, instance.instance_id, folder, instance=instance)
        return machine

    def studio_machine(self, name: str, address: IPv4Address, make_image: ImageFactory) -> Machine:
        """Make the disk of a machine for the studio's LAN (any thread may)."""
        folder = self.folder / "machines" / name
        folder.mkdir()
        make_image(folder)
        machine = Machine(name, name, folder)
        machine.card = plan.lan_nic(address)
        return machine

    def add(self, machine: Machine) -> None:
        """Put a machine into the studio; it boots with the next round and starts again only by its own wish."""
        self.machines[machine.name] = machine
        self._wake.set()

    async def _guard(self, view: CloudView) -> None:
        """Apply security groups where they, their members or an interface changed."""
        interfaces = {instance.instance_id: instance.interface for instance in view.instances}
        now = (view.security_groups, filters.group_members(view), interfaces)
        if now != self._guarded:
            for machine in self.machines.values():
                if machine.state is MachineState.RUNNING and machine.instance is not None:
                    await self.network.guard(machine.namespace, machine.instance.interface, view)
            self._guarded = now

    def _interrupt_boot(self, machine: Machine, instance: InstanceView | None) -> None:
        booting = machine.state is MachineState.BOOTING and machine.instance is not None
        if booting and (instance is None or instance.state not in ("pending", "running")) and machine.task is not None:
            machine.task.cancel()

    def _begin(self, machine: Machine, step: Step) -> None:
        actions = {
            Step.BOOT: self._boot,
            Step.REBOOT: self._reboot,
            Step.POWER_OFF: self._power_off,
            Step.GUEST_SHUTDOWN: self._guest_shutdown,
            Step.REMOVE: self._remove,
        }
        if step is Step.NOTHING:
            return
        machine.task = asyncio.create_task(
            self._act(machine, actions[step]), name=f"{machine.name}: {step.name.lower()}"
        )

    async def _act(self, machine: Machine, action: Callable[[Machine], Awaitable[None]]) -> None:
        try:
            await action(machine)
        except Exception as error:
            machine.state = MachineState.FAILED
            machine.error = str(error) or repr(error)
            if isinstance(error, RehearsalError | OSError):
                machine.log(f"failed: {machine.error}")
            else:
                machine.log("failed:\n" + traceback.format_exc())
            log.warning("%s: %s", machine.name, machine.error)
        finally:
            self._changed()
            self._wake.set()

    # ---------------------------------------------------------------------------------------------------------- steps

    async def _boot(self, machine: Machine) -> None:
        machine.boots_seen = machine.instance.boots if machine.instance else 1
        machine.requested = None
        machine.error = ""
        machine.state = MachineState.BOOTING
        self._changed()
        try:
            async with contextlib.AsyncExitStack() as booting:
                await booting.enter_async_context(self._boot_limit)
                if machine.instance is not None and not machine.disk.exists():
                    await self._clone(machine, machine.instance)
                await self._power_on(machine)
                self._end_booting(machine, booting.pop_all())
        except BaseException:
            await self._cut(machine)
            machine.state = MachineState.OFF
            raise
        machine.state = MachineState.RUNNING
        if machine.instance is not None:  # security groups may have changed since it was plugged in
            await self.network.guard(machine.namespace, machine.instance.interface, self._view)

    def _end_booting(self, machine: Machine, booting: contextlib.AsyncExitStack) -> None:
        """Leave ``booting`` when the machine's startup tasks have done their first work."""
        host = machine.host
        assert host is not None

        async def wait() -> None:
            async with booting:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_BOOT_SECONDS):
                        await host.booted()

        task = asyncio.create_task(wait(), name=f"{machine.name}: booting")
        self._booting.add(task)
        task.add_done_callback(self._booting.discard)

    async def _power_on(self, machine: Machine) -> None:
        instance = machine.instance
        if instance is None:
            assert machine.card is not None
            await self.network.plug_studio(machine.namespace, machine.card)
        else:
            view = self._view
            machine.card = plan.nic(instance.interface, view)
            await self.network.plug_instance(machine.namespace, machine.card, instance.interface, view)
            await self._serve_metadata(machine)
            await self._serve_names(machine, instance.interface.vpc_id)
        if machine.faults:
            await self._apply_faults(machine)
        machine.platform = MachinePlatform(
            machine.name,
            machine.namespace,
            machine.card,
            key_name=instance.key_name if instance else None,
            on_serial=partial(self._serial, machine),
            on_power=partial(self._guest_power, machine),
            on_password=partial(self._password, machine),
            clock_ahead=machine.clock_ahead,
            env=_environment(machine),
        )
        shared_name = machine.instance.tags.get("Name", "") if machine.instance else ""
        failing = self.boot_failures & {machine.name, machine.key, shared_name}
        if failing:
            self.boot_failures -= failing
            self._serial(machine, b"Windows failed to start: INACCESSIBLE_BOOT_DEVICE\r\n")
            raise BootFailure("boot failure (injected)")
        machine.host = self._make_host(machine.folder, machine.platform)
        await machine.host.power_on()

    async def _reboot(self, machine: Machine) -> None:
        await self._power_off(machine)
        await self._boot(machine)

    async def _power_off(self, machine: Machine) -> None:
        machine.state = MachineState.STOPPING
        self._changed()
        await self._cut(machine)
        machine.state = MachineState.OFF

    async def _guest_shutdown(self, machine: Machine) -> None:
        machine.requested = None
        await self._power_off(machine)
        if machine.instance is not None:
            await asyncio.to_thread(self.cloud.guest_power_off, machine.key)

    async def _remove(self, machine: Machine) -> None:
        if machine.state is not MachineState.OFF:
            await self._power_off(machine)
        machine.log("terminated")
        if "disk-full" in machine.faults:
            await asyncio.to_thread(disks.free, machine.folder)
        name = machine.name if machine.key in machine.name else f"{machine.name}-{machine.key}"
        await asyncio.to_thread(disks.keep_logs, machine.folder, self.folder / "machines" / "terminated" / name)
        del self.machines[machine.key]
        self.terminated.append(machine.key)

    async def _cut(self, machine: Machine) -> None:
        """Take the power away and everything with it; the disk stays."""
        try:
            if machine.host is not None:
                machine.winrm_commands = machine.commands
                host, machine.host = machine.host, None
                async with asyncio.timeout(_POWER_OFF_LIMIT):
                    await host.power_off()
        finally:
            if machine.platform is not None:
                await machine.platform.close()
                machine.platform = None
            if machine.metadata is not None:
                machine.metadata.close()
                machine.metadata = None
            if machine.resolver is not None:
                machine.resolver.close()
                machine.resolver = None
            if machine.card is not None:
                await self.network.unplug(machine.namespace, machine.card)

    async def cut_power_in_phase(self, machine: Machine, phase: str) -> None:
        """Cut its power when its boot stands still in ``phase``, unless `Machine.power_cut` is changed before."""
        while machine.power_cut == phase and self.machines.get(machine.key) is machine:
            if machine.held_still.exists():
                machine.held_still.unlink()
                machine.power_cut = ""
                machine.log(f"the boot is in phase {phase}")
                await self.cut_power(machine)
                return
            await asyncio.sleep(0.05)

    async def cut_power(self, machine: Machine) -> None:
        """The machine loses power; EC2 does not notice."""
        if machine.busy and machine.task is not None:
            machine.task.cancel()
            await asyncio.wait([machine.task])
        machine.task = asyncio.current_task()
        try:
            await self._cut(machine)
            machine.state = MachineState.DEAD
            machine.log("power was cut")
        finally:
            machine.task = None
            self._changed()

    async def close(self) -> None:
        """End every host; the wires go with the rehearsal."""
        tasks = [machine.task for machine in self.machines.values() if machine.task and not machine.task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        hosts = [machine.host for machine in self.machines.values() if machine.host]
        try:
            async with asyncio.timeout(_CLOSE_LIMIT):
                for result in await asyncio.gather(*(host.power_off() for host in hosts), return_exceptions=True):
                    if isinstance(result, BaseException):
                        log.error("a host did not power off cleanly: %s", result)
        except TimeoutError:
            log.error("not every host powered off within %g s", _CLOSE_LIMIT)

    # --------------------------------------------------------------------------------------- what a machine is given

    def _serial(self, machine: Machine, data: bytes) -> None:
        machine.console(data)
        if machine.instance is not None:
            self.cloud.console_write(machine.key, data)

    def _guest_power(self, machine: Machine, action: PowerAction) -> None:
        machine.log(f"the guest asks for {action}")

        def ask() -> None:
            machine.requested = action
            self._wake.set()

        asyncio.get_running_loop().call_later(_POWER_DELAY, ask)

    def _password(self, machine: Machine, password: str) -> None:
        if machine.instance is None:
            raise RehearsalError(f"{machine.name} is not an EC2 instance: nothing shows its password")
        self.cloud.password_data(machine.key, password)

    async def _serve_metadata(self, machine: Machine) -> None:
        def instance() -> InstanceView:
            assert machine.instance is not None
            return machine.instance

        def tree() -> imds.Tree:
            current = instance()
            vpc = next(vpc for vpc in self._view.vpcs if vpc.vpc_id == current.interface.vpc_id)
            assert machine.card is not None
            return imds.metadata(
                current, subnet=machine.card.network, vpc=vpc.network, now=time.time(), rebalance=machine.rebalance
            )

        late = self.late_metadata.pop(machine.key, 0.0)
        service = imds.MetadataService(instance, tree, machine.log, available=time.time() + late)
        listener = netns.listening_socket(machine.namespace, str(plan.METADATA_ADDRESS), imds.PORT)
        machine.metadata = await asyncio.start_server(http.serving(service.handler), sock=listener)

    async def _serve_names(self, machine: Machine, vpc_id: str) -> None:
        def lookup(name: str) -> IPv4Address | None:
            return vpc_dns.resolve(name, self._view.instances, vpc_id)

        listener = netns.datagram_socket(machine.namespace, str(vpc_dns.ADDRESS), vpc_dns.PORT)
        machine.resolver, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: vpc_dns.Resolver(lookup), sock=listener
        )

    async def _apply_faults(self, machine: Machine) -> None:
        """Bring the packet filter of injected faults to a machine's namespace, or take it away."""
        if netns.exists(machine.namespace):
            lost = "winrm-lost" in machine.faults
            rules = filters.drop_ports(_WINRM_PORTS) if lost else filters.without("inet", "fault")
            await netns.nft(machine.namespace, rules)

    async def lose_winrm(self, machine: Machine) -> None:
        """Let packets to WinRM vanish, also after a reboot, until the fault is lifted."""
        machine.faults.add("winrm-lost")
        await self._apply_faults(machine)

    async def fill_disk(self, machine: Machine) -> None:
        """Leave no space on the drive of a machine."""
        if "disk-full" not in machine.faults:
            await asyncio.to_thread(disks.fill, machine.folder)
            machine.faults.add("disk-full")

    async def repair(self, machine: Machine) -> None:
        """Lift the lasting faults of a machine and give it power if it has none though it should."""
        if "disk-full" in machine.faults:
            await asyncio.to_thread(disks.free, machine.folder)
        machine.faults.clear()
        machine.clock_ahead = 0
        machine.power_cut = ""
        self.boot_failures -= {machine.name, machine.key}
        if machine.state in (MachineState.OFF, MachineState.FAILED, MachineState.DEAD):
            machine.boots_seen = None
            self._wake.set()
        await self._apply_faults(machine)

    # ---------------------------------------------------------------------------------------------------------- disks

    def image_folder(self, image_id: str) -> Path:
        """Where the disk of an image is kept."""
        return self.folder / "images" / image_id

    async def _clone(self, machine: Machine, instance: InstanceView) -> None:
        image = next((image for image in self._view.images if image.image_id == instance.image_id), None)
        source = self.image_folder(instance.image_id)
        async with self._image_locks.setdefault(instance.image_id, asyncio.Lock()):
            if not source.exists():
                if image is None or image.source_instance_id is not None:
                    raise RehearsalError(f"the disk of the image {instance.image_id} does not exist")
                await asyncio.to_thread(disks.make, self._make_server_image, source)
        await disks.clone(source, machine.folder)

    def _images(self, view: CloudView) -> None:
        known = {image.image_id for image in view.images}
        for folder in (self.folder / "images").iterdir():
            if folder.name.removesuffix(".part") not in known | self._copies.keys():
                shutil.rmtree(folder)
        for image in view.images:
            source = image.source_instance_id
            if image.state != "pending" or source is None or image.image_id in self._copied | self._copies.keys():
                continue
            machine = self.machines.get(source)
            if machine is None:
                self._copies[image.image_id] = asyncio.create_task(self._make_image(image, None))
            elif not machine.busy and (machine.state is MachineState.OFF or not _stopping(machine)):
                machine.task = asyncio.create_task(self._act(machine, partial(self._make_image, image)))
                self._copies[image.image_id] = machine.task

    async def _make_image(self, image: ImageView, machine: Machine | None) -> None:
        """Copy the disk of an image's source. A source that EC2 reboots for that is copied between off and on.

        Source: EC2 API Reference, CreateImage: "By default, Amazon EC2 shuts down the instance, takes snapshots of any
        attached volumes, creates the AMI, and then reboots the instance"; with NoReboot a running system is copied.
        """
        error: str | None = None
        reboot = False
        try:
            if machine is None or not machine.disk.exists():
                raise RehearsalError(f"the disk of {image.source_instance_id} does not exist")
            up = machine.state is MachineState.RUNNING
            reboot = up and machine.instance is not None and machine.instance.boots != machine.boots_seen
            if reboot:
                await self._power_off(machine)
            await disks.clone(machine.folder, self.image_folder(image.image_id))
        except Exception as problem:
            error = str(problem) or repr(problem)
            log.exception("image %s failed", image.image_id)
            if machine is not None:
                machine.log(f"image {image.image_id}: {error}")
        finally:
            self._copied.add(image.image_id)
            self._copies.pop(image.image_id, None)
        await asyncio.to_thread(partial(self.cloud.image_ready, image.image_id, error=error))
        self._wake.set()
        if reboot and machine is not None:
            await self._boot(machine)

    # ------------------------------------------------------------------------------------------------------- for users

    def find(self, name: str) -> Machine:
        """A machine by its name or instance id. RehearsalError lists the machines when there is no such one."""
        for machine in self.machines.values():
            if name in (machine.name, machine.key):
                return machine
        known = ", ".join(sorted(machine.name for machine in self.machines.values())) or "none yet"
        raise RehearsalError(f"there is no machine {name}; machines: {known}")


def _environment(machine: Machine) -> dict[str, str]:
    """What tells the real processes of a machine in which phase of its boot its power goes."""
    if not machine.power_cut:
        return {}
    memory = machine.disk / boot_times.STATE
    return {"REHEARSAL_POWER_CUT": f"{machine.power_cut}\n{memory}\n{machine.held_still}"}


def _stopping(machine: Machine) -> bool:
    """Whether EC2 stops the machine and its disk is therefore not yet complete."""
    return machine.instance is not None and machine.instance.state in ("stopping", "stopped")
