"""Faults that can be injected into a running rehearsal, by name."""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from rehearsal.hypervisor import Hypervisor
from rehearsal.interfaces import RehearsalError
from rehearsal.machine import MachineState
from rehearsal.network import filters, netns, plan

SETTINGS_OF_BACKBURNER = (
    r"C:\Windows\ServiceProfiles\LocalService\AppData\Local\backburner\backburner.xml"  # of the services' account
)
_LIFT = "lift it with: python -m rehearsal inject repair {name}"


class Cloud(Protocol):
    """What faults ask of the simulated region."""

    def set_capacity(self, instance_type: str, zone: str, count: int | None) -> None: ...
    def lose_answers(self, action: str, count: int) -> None: ...
    def deny(self, action: str, value: bool) -> None: ...
    def limit(self, level: float | None) -> None: ...
    def unknown_for(self, seconds: float) -> None: ...
    def spot_interrupt(self, instance_id: str, in_seconds: float) -> None: ...
    def fail_next(self, action: str, code: str, count: int) -> None: ...
    def api_down(self, value: bool) -> None: ...
    def set_vcpu_quota(self, lifecycle: Literal["spot", "on-demand"], vcpus: float) -> None: ...


@dataclass
class Context:
    """What faults act upon."""

    hypervisor: Hypervisor
    cloud: Cloud
    background: set[asyncio.Task[None]]


@dataclass(frozen=True)
class Fault:
    """``arguments`` are their names in the help; ``inject`` returns what it did, for the user."""

    name: str
    arguments: tuple[str, ...]
    help: str
    inject: Callable[[Context, Sequence[str]], Awaitable[str]]

    @property
    def usage(self) -> str:
        return " ".join([self.name, *self.arguments])


def _number(text: str, what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise RehearsalError(f"{what} is a number, not {text!r}") from None
    if not 0 <= number < 1e9:
        raise RehearsalError(f"{what} is a number from 0 on, not {text}")
    return number


def _count(text: str, what: str) -> int:
    if not text.isdigit():
        raise RehearsalError(f"{what} is a whole number from 0 on, not {text!r}")
    return int(text)


def _begin(context: Context, work: Coroutine[None, None, None], name: str) -> None:
    """Go on with ``work`` in the background."""
    task = asyncio.create_task(work, name=name)
    context.background.add(task)
    task.add_done_callback(context.background.discard)


async def _capacity(context: Context, arguments: Sequence[str]) -> str:
    kind, zone, count = arguments
    context.cloud.set_capacity(kind, zone, None if count == "plenty" else _count(count, "N"))
    return f"{zone} has room for {count} instances of {kind} in all"


async def _quota(context: Context, arguments: Sequence[str]) -> str:
    lifecycle, vcpus = arguments
    if lifecycle not in ("spot", "on-demand"):
        raise RehearsalError(f"LIFECYCLE is spot or on-demand, not {lifecycle!r}")
    context.cloud.set_vcpu_quota("spot" if lifecycle == "spot" else "on-demand", _count(vcpus, "VCPUS"))
    return f"Service Quotas allows {vcpus} vCPUs {lifecycle}"


async def _answer_lost(context: Context, arguments: Sequence[str]) -> str:
    action, count = arguments
    context.cloud.lose_answers(action, _count(count, "N"))
    return f"the next {count} calls of {action} take effect, but nobody hears the answer"


async def _consistency(context: Context, arguments: Sequence[str]) -> str:
    seconds = _number(arguments[0], "SECONDS")
    context.cloud.unknown_for(seconds)
    return f"new instances, images and snapshots become known one after the other within {seconds:g} s"


async def _deny(context: Context, arguments: Sequence[str]) -> str:
    action = arguments[0]
    denied = _switch(arguments[1], "permission to deny") == "on"
    context.cloud.deny(action, denied)
    return f"the caller may {'not ' if denied else ''}do {action}"


async def _limits(context: Context, arguments: Sequence[str]) -> str:
    if arguments[0] == "off":
        context.cloud.limit(None)
        return "the EC2 API takes any number of requests"
    percent = _number(arguments[0], "PERCENT")
    if percent > 100:
        raise RehearsalError(f"PERCENT is a number from 0 to 100, or off, not {arguments[0]}")
    context.cloud.limit(percent / 100)
    return f"the EC2 API throttles as documented; its buckets are full to {percent:g} %"


def _switch(text: str, what: str) -> str:
    if text not in ("on", "off"):
        raise RehearsalError(f"the {what} is on or off, not {text!r}")
    return text


async def _spot_interrupt(context: Context, arguments: Sequence[str]) -> str:
    machine = context.hypervisor.find(arguments[0])
    seconds = _number(arguments[1], "SECONDS")
    if machine.instance is None or machine.instance.lifecycle != "spot":
        raise RehearsalError(f"{machine.name} is not a spot instance: EC2 does not take it back")
    context.cloud.spot_interrupt(machine.key, seconds)
    return f"EC2 takes {machine.name} back in {seconds:g} s; its metadata service shows the notice"


async def _rebalance(context: Context, arguments: Sequence[str]) -> str:
    machine = context.hypervisor.find(arguments[0])
    if machine.instance is None or machine.instance.lifecycle != "spot":
        raise RehearsalError(f"{machine.name} is not a spot instance: EC2 advises it nothing")
    machine.rebalance = time.time()
    return f"the metadata service of {machine.name} recommends to rebalance; EC2 has not decided to take it"


async def _hang_render(context: Context, arguments: Sequence[str]) -> str:
    machine = context.hypervisor.find(arguments[0])
    count = machine.host.hang_renders() if machine.host is not None else 0
    if not count:
        raise RehearsalError(f"nothing renders on {machine.name} now: submit a job first")
    return f"{count} processes of a render hang on {machine.name}: no processor time, no end, not even with the service"


async def _boot_failure(context: Context, arguments: Sequence[str]) -> str:
    context.hypervisor.boot_failures.add(arguments[0])
    return f"the next boot of {arguments[0]} fails (also when it does not exist yet)"


async def _metadata_late(context: Context, arguments: Sequence[str]) -> str:
    machine = context.hypervisor.find(arguments[0])
    seconds = _number(arguments[1], "SECONDS")
    if machine.instance is None:
        raise RehearsalError(f"{machine.name} is not an EC2 instance: it has no metadata service")
    context.hypervisor.late_metadata[machine.key] = seconds
    return f"at the next boot of {machine.name} its metadata service says nothing for {seconds:g} s"


async def _clock_off(context: Context, arguments: Sequence[str]) -> str:
    machine = context.hypervisor.find(arguments[0])
    if re.fullmatch(r"-?\d{1,9}", arguments[1]) is None:
        raise RehearsalError(f"SECONDS is a whole number, below 0 for a clock that is behind, not {arguments[1]!r}")
    if shutil.which("datefudge") is None:
        raise RehearsalError("datefudge not found; install with: sudo apt-get install datefudge")
    machine.clock_ahead = int(arguments[1])
    way = "ahead" if machine.clock_ahead >= 0 else "behind"
    return f"from its next boot on the clock of {machine.name} is {abs(machine.clock_ahead)} s {way}"


async def _winrm_lost(context: Context, arguments: Sequence[str]) -> str:
    machine = context.hypervisor.find(arguments[0])
    await context.hypervisor.lose_winrm(machine)
    return f"packets to WinRM of {machine.name} vanish; {_LIFT.format(name=machine.name)}"


async def _api_down(context: Context, arguments: Sequence[str]) -> str:
    seconds = _number(arguments[0], "SECONDS")
    context.cloud.api_down(True)

    async def lift() -> None:
        await asyncio.sleep(seconds)
        context.cloud.api_down(False)

    _begin(context, lift(), "api-down")
    return f"the EC2 API answers nobody for {seconds:g} s"


async def _api_error(context: Context, arguments: Sequence[str]) -> str:
    action, code, count = arguments
    times = _count(count, "N")
    context.cloud.fail_next(action, code, times)
    return f"the next {times} calls of {action} end with {code}"


async def _kill(context: Context, arguments: Sequence[str]) -> str:
    machine = context.hypervisor.find(arguments[0])
    if machine.state is MachineState.OFF:
        raise RehearsalError(f"{machine.name} has no power")
    await context.hypervisor.cut_power(machine)
    return f"{machine.name} has lost power, which EC2 does not notice; {_LIFT.format(name=machine.name)}"


async def _power_cut(context: Context, arguments: Sequence[str]) -> str:
    machine, phase = context.hypervisor.find(arguments[0]), arguments[1]
    if re.fullmatch(r"[a-z]+", phase) is None:
        raise RehearsalError(f"PHASE is a phase of farmnode's boot such as identity, not {phase!r}")
    machine.power_cut = phase
    _begin(context, context.hypervisor.cut_power_in_phase(machine, phase), "power-cut")
    return f"{machine.name} loses power when its next boot is in phase {phase}; {_LIFT.format(name=machine.name)}"


async def _disk_full(context: Context, arguments: Sequence[str]) -> str:
    machine = context.hypervisor.find(arguments[0])
    await context.hypervisor.fill_disk(machine)
    return f"no space is left on C: of {machine.name}; {_LIFT.format(name=machine.name)}"


async def _corrupt_xml(context: Context, arguments: Sequence[str]) -> str:
    machine = context.hypervisor.find(arguments[0])
    path = machine.disk / SETTINGS_OF_BACKBURNER.removeprefix("C:\\").replace("\\", "/")
    if not path.is_file():
        raise RehearsalError(f"{machine.name} has no {SETTINGS_OF_BACKBURNER} yet: Backburner never ran on it")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return f"{SETTINGS_OF_BACKBURNER} of {machine.name} ends in its middle"


async def _port_forward(context: Context, arguments: Sequence[str]) -> str:
    off = _switch(arguments[0], "port forward") == "off"
    await netns.nft(plan.HOME, filters.without_forward(plan.VPN_PORT) if off else filters.without("inet", "fault"))
    return f"the studio's router {'drops' if off else 'forwards'} UDP port {plan.VPN_PORT} from the internet"


async def _repair(context: Context, arguments: Sequence[str]) -> str:
    machine = context.hypervisor.find(arguments[0])
    await context.hypervisor.repair(machine)
    lifted = "winrm-lost, disk-full, clock-off and power-cut are lifted"
    return f"{machine.name} is repaired: {lifted}, and power is on if EC2 means it to be"


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("api-down", ("SECONDS",), "the EC2 API answers nobody", _api_down),
        Fault(
            "api-error",
            ("ACTION", "CODE", "N"),
            "the next N calls of an action (or *) end with an error",
            _api_error,
        ),
        Fault("answer-lost", ("ACTION", "N"), "the next N calls take effect, but their answer is lost", _answer_lost),
        Fault("boot-failure", ("MACHINE",), "the machine's next boot fails", _boot_failure),
        Fault("capacity", ("TYPE", "ZONE", "N"), "room for N instances of a type (or *) in a zone (or *)", _capacity),
        Fault("clock-off", ("MACHINE", "SECONDS"), "from its next boot on the machine's clock is wrong", _clock_off),
        Fault("consistency", ("SECONDS",), "what is new is unknown to the API at first", _consistency),
        Fault("corrupt-xml", ("MACHINE",), "backburner.xml is cut in its middle", _corrupt_xml),
        Fault("deny", ("ACTION", "on|off"), "the caller lacks the permission for an action", _deny),
        Fault("disk-full", ("MACHINE",), "no space is left on C:", _disk_full),
        Fault("hang-render", ("MACHINE",), "the programs that render now hang", _hang_render),
        Fault("kill", ("MACHINE",), "the machine loses power", _kill),
        Fault("limits", ("PERCENT|off",), "EC2 throttles as documented, from buckets so full", _limits),
        Fault(
            "metadata-late",
            ("MACHINE", "SECONDS"),
            "at the machine's next boot its metadata service comes late",
            _metadata_late,
        ),
        Fault(
            "port-forward",
            ("on|off",),
            "the studio's router stops (or goes on) forwarding the VPN's port",
            _port_forward,
        ),
        Fault("power-cut", ("MACHINE", "PHASE"), "the machine loses power in a phase of its next boot", _power_cut),
        Fault("quota", ("LIFECYCLE", "VCPUS"), "so many vCPUs may run, spot or on-demand", _quota),
        Fault("rebalance", ("MACHINE",), "EC2 advises to leave a spot instance", _rebalance),
        Fault("repair", ("MACHINE",), "lifts winrm-lost, disk-full, clock-off, power-cut; gives power", _repair),
        Fault("spot-interrupt", ("MACHINE", "SECONDS"), "EC2 takes a spot instance back", _spot_interrupt),
        Fault("winrm-lost", ("MACHINE",), "packets to WinRM vanish", _winrm_lost),
    )
}


def listing() -> str:
    """All faults with their arguments, one a line."""
    width = max(len(fault.usage) for fault in FAULTS.values())
    return "\n".join(f"  {fault.usage:<{width}}  {fault.help}" for fault in FAULTS.values())


def check(name: str, arguments: Sequence[str]) -> Fault:
    """The fault of this name, if the number of arguments fits. RehearsalError lists what there is."""
    fault = FAULTS.get(name)
    if fault is None:
        raise RehearsalError(f"there is no fault {name}; faults:\n{listing()}")
    if len(arguments) != len(fault.arguments):
        raise RehearsalError(f"{name} takes {' '.join(fault.arguments)}: python -m rehearsal inject {fault.usage}")
    return fault


async def inject(context: Context, name: str, arguments: Sequence[str]) -> str:
    """Inject a fault and say what it did. RehearsalError when it is unknown or cannot be."""
    return await check(name, arguments).inject(context, arguments)
