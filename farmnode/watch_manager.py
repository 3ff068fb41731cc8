"""What the manager does besides Backburner: tells the share's password, sweeps ghosts, reminds of what runs, renders.

None of these may harm another, nor the farm: what fails is logged, once for each reason, and tried again.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Any, Final

from farmnode import drives, jobs, manager, reminder, services
from farmnode.attempts import Attempts
from farmnode.drives_keys import PORT, Keys, secrets_folder
from farmnode.errors import FarmNodeError
from farmnode.farm import Farm
from farmnode.machine import Machine
from farmnode.manager import Server
from farmnode.reminder import Ledger

_OWN: Final = "127.0.0.1"
#: A render node's name, by which the VPC's DNS knows its address; a remote node registers with its address.
_NODE = re.compile(r"(?:ip-)?(\d{1,3})[-.](\d{1,3})[-.](\d{1,3})[-.](\d{1,3})(?:\..*)?", re.IGNORECASE)


def is_node(name: str, networks: tuple[IPv4Network, ...]) -> bool:
    """Is a server of this name one of the farm's, which come and go, and not a computer of the studio?"""
    match = _NODE.fullmatch(name)
    if match is None:
        return False
    try:
        address = IPv4Address(".".join(match.groups()))
    except AddressValueError:
        return False
    return any(address in network for network in networks)


class ManagerWatch:
    """The manager's watch. It never ends by itself: who ends a manager is a person."""

    def __init__(self, machine: Machine, told: Farm, boot: dict[str, Any]) -> None:
        self._machine = machine
        self._limits = told.watch
        self._port = told.manager_port
        self._told = told
        self._boot = boot
        self._rendering: int | None = None
        """The process of Backburner's server whose priority was lowered; None before it was first started."""
        self._networks = tuple(told.networks[name] for name in ("cloud", "remote") if name in told.networks)
        self._keys = Keys(machine.folder, self._networks, machine.log)
        now = machine.clock.monotonic()
        self._ledger = self._kept_ledger(now)
        self._reminded = now
        self._absent: dict[str, float] = {}
        self._attempts = Attempts(machine.log)

    def run(self) -> dict[str, Any]:
        """Go round until the power goes."""
        self._machine.log.info("the manager looks after the farm")
        while True:
            self.round()
            self._machine.clock.sleep(self._limits.sample)

    def round(self) -> None:
        """Do once what is due."""
        listed: list[Server] = []

        def ask() -> None:
            listed.extend(manager.servers(_OWN, self._port, self._machine.clock))
            self._ledger.count(self._running(listed), self._machine.clock.monotonic())

        def save() -> None:
            self._ledger.save(self._machine.folder / reminder.LEDGER, self._machine.clock.now())

        self._attempts.do("share", lambda: self._keys.stand(PORT))
        self._attempts.do("list of servers", ask)
        self._attempts.do("ledger", save)
        self._attempts.do("ghosts", lambda: self._sweep(listed))
        self._attempts.do("reminder", self._remind)
        self._attempts.do("rendering", self._render)

    def _kept_ledger(self, now: float) -> Ledger:
        """What was counted before the manager's start. When that is lost, its mails say since when they count."""
        clock = self._machine.clock
        try:
            return reminder.ledger_from(self._machine.folder / reminder.LEDGER, clock.now(), now)
        except FarmNodeError as error:
            self._machine.log.error(f"hours and cost are counted anew from now on: {error.message}")
            return Ledger(since=clock.now(), at=now)

    def _running(self, listed: list[Server]) -> list[str]:
        return [
            server.name
            for server in listed
            if server.state != manager.ABSENT
            and is_node(server.name, self._networks)
            and server.mac != self._boot.get("mac")  # a manager that renders is no machine more
        ]

    def _sweep(self, listed: list[Server]) -> None:
        """Delete the farm's nodes that have been absent for long: machines that died before they could do it."""
        now = self._machine.clock.monotonic()
        absent = {
            server.handle
            for server in listed
            if server.state == manager.ABSENT and is_node(server.name, self._networks)
        }
        self._absent = {handle: self._absent.get(handle, now) for handle in absent}
        for handle, since in sorted(self._absent.items()):
            if now - since >= self._limits.ghost:
                manager.delete(_OWN, self._port, handle, self._machine.clock)
                self._machine.log.info(f"{handle} was absent for {now - since:.0f} seconds: deleted from the list")

    def _remind(self) -> bool:
        """Send the mail when it is due; False when it is not."""
        settings = reminder.settings_from(secrets_folder(self._machine.folder) / reminder.FILE)
        now = self._machine.clock.monotonic()
        if settings is None or not settings.minutes or now - self._reminded < settings.minutes * 60:
            return False
        # Also when it fails: the next attempt is the next reminder, not a storm of them.
        self._reminded = now
        subject, text = reminder.message(settings, self._ledger, now)
        reminder.send(settings, subject, text)
        self._machine.log.info(f"reminded {', '.join(settings.recipients)}: {subject}")
        return True

    def _render(self) -> bool:
        """Render as well, if the farm wants it; False when there is nothing to do.

        It begins as on a node: after backburner.xml is right, which the boot saw to, and the share is there, which
        waits for Ansible on a manager's first day. What comes before it in `round` lets the share be mapped.

        A priority lasts as long as its process: when somebody has started the server anew it has to be lowered again.
        To ask for the process is cheap (``sc.exe``), to look at priorities is not (PowerShell).
        """
        if not self._told.renders or self._boot.get("event") != "ready":
            return False
        machine = self._machine
        if self._rendering is None:
            if self._told.share is not None:
                machine.log.info(drives.map_share(self._told.share, machine.programs))
            machine.services.start(services.SERVER)
        process = machine.services.process_id(services.SERVER)
        if process in (0, self._rendering):  # who stopped it, wanted that
            return False
        jobs.give_way(machine.programs)
        machine.log.info(f"{services.SERVER} runs at low priority: the manager renders as well")
        self._rendering = process
        return True
