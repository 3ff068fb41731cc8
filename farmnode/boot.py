"""From power-on to a registered machine, in phases.

metadata → role → (tunnel →) identity → routes → drives → manager → services → registration.  The order is the point: a
Backburner service starts only after its file is right, so no machine ever registers as another one.  A delay could not
promise that.

Each phase may run again at any time, for a machine may lose its power in the middle of it: it looks at what is there
and makes it right.  What may pass (`farmnode.errors.PASSING`) is tried again until the limit of the phase (`Limits`).

``boot`` in ``state.json``: ``started`` (UTC), ``event`` (``booting``, ``ready`` or ``failed``), ``instance``, ``role``,
``phase`` (the last one), ``phases`` (each with ``name``, ``started``, ``seconds``, ``tries``, ``outcome`` ``running``,
``done``, ``skipped`` or ``failed``, ``detail``), and at the end ``seconds``, ``processor_seconds`` of its process and,
when it failed, ``reason``.  Bookkeeping that fails is logged and stops nothing.

``role`` in ``state.json`` is kept beside ``boot``, which each boot begins anew: a manager whose next boots do not get
as far as their role must still know that it stays up.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any, Final

from farmnode import backburner_xml, converge, drives, farm, leaving, manager, paths, routes, services
from farmnode.converge import Desired
from farmnode.errors import PASSING, FarmNodeError
from farmnode.farm import Farm, Limits
from farmnode.machine import Machine
from farmnode.metadata import Instance
from farmnode.routes import Route

#: Seconds after which a phase that waits says so on the console: the farm must not look dead meanwhile.
_PATIENCE: Final = 10.0

#: Seconds between two tries of a phase: first and most.
_PAUSES: Final = (0.5, 5.0)

#: Seconds for which the boot waits for a state.json that another program holds.
_HELD: Final = 5.0

#: How often, and after how many seconds, a machine of no use tries to end itself.
_ENDING: Final = (5, 10.0)

#: What follows the phases metadata and role.
_PHASES: Final = {
    "builder": (),
    "manager": ("identity", "services", "manager"),
    "render_node": ("identity", "routes", "drives", "manager", "services", "registration"),
    # A remote node's tunnel brings its routes, and the address by which the manager reaches it.
    "remote_node": ("tunnel", "identity", "drives", "manager", "services", "registration"),
}


class _Skipped(Exception):
    """The phase has nothing to do on this machine; the text says why."""


class Boot:
    """One boot of one machine. `run` never raises: a machine without a user must tell what happened and act on it."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._begun = machine.clock.monotonic()
        self._known: dict[str, Any] = {"started": machine.clock.stamp(), "event": "booting", "phases": []}
        self._instance: Instance | None = None
        self._farm: Farm | None = None
        self._tunnel_address: IPv4Address | None = None
        self._waiting_said = False

    def run(self) -> dict[str, Any]:
        """Boot; returns the event that was also said on the serial port, ``ready`` or ``failed``."""
        log = self._machine.log
        log.info("boot begins")
        may_be_manager = self._may_be_manager()
        try:
            self._phase("metadata", self._metadata, 0)  # asks again by itself
            self._phase("role", self._role, 0)
            for name in _PHASES[self._known["role"]]:
                self._phase(name, getattr(self, f"_{name}"), self._limit(name))
            event = self._end("ready")
            self._machine.serial.say(event)
        except FarmNodeError as error:
            event = self._failed(error.reason, error.message, may_be_manager)
        except Exception as error:
            log.error(traceback.format_exc())
            event = self._failed("unexpected", f"{type(error).__name__}: {error}", may_be_manager)
        return event

    # ------------------------------------------------------------------------------------------------------- phases

    def _metadata(self) -> str:
        self._instance = instance = self._machine.metadata.instance()
        self._known |= {"instance": instance.instance_id, **instance.identity.as_json()}
        return f"{instance.instance_id} {instance.address} in {instance.subnet}, MAC {instance.mac}"

    def _role(self) -> str:
        instance = self._own_instance
        self._farm = farm.parse_user_data(instance.user_data)
        self._known["role"] = farm.decide_role(self._farm, instance.role_tag, instance.address)
        if self._farm is not None:
            self._machine.services.limit = self._farm.limits.service
        return str(self._known["role"])

    def _tunnel(self) -> str:
        """Wait until this machine has its address in the tunnel: Ansible brings the keys, OpenVPN the address."""
        network = self._told.networks.get("remote")
        if network is None:
            raise FarmNodeError("bad_user_data", "the <farm> part of the user data names no network 'remote'.")
        limit = self._told.limits.tunnel

        def found() -> bool:
            own = [own for link, own in self._machine.route_table.active().links if own in network]
            self._tunnel_address = min(own) if own else None
            return bool(own)

        if not self._wait(found, limit, lambda: f"no address in {network} yet"):
            raise FarmNodeError(
                "no_tunnel",
                f"no address in {network} after {limit:g} seconds. Keys and configuration come from farm-up.yml; see "
                "OpenVPN's log on this machine, and that the manager's UDP port for remote nodes is open.",
            )
        return f"{self._tunnel_address} in {network}"

    def _identity(self) -> str:
        machine, instance, told = self._machine, self._own_instance, self._told
        if machine.state.image() is None:
            raise FarmNodeError(
                "not_sealed",
                f"{paths.shown(machine.state.image_path)} does not exist, so whose identity {backburner_xml.FILE} "
                "carries is not known. Bake the image with 'farmnode seal' as its last step.",
            )
        is_manager = self._known["role"] == "manager"
        result = converge.apply(
            Desired(
                manager=str(instance.address) if is_manager else self._manager_name,
                manager_port=told.manager_port,
                server_port=told.server_port,
                network_mask=str(instance.subnet.netmask),
                server_name=str(self._tunnel_address) if self._tunnel_address else None,
                identity=instance.identity,
            ),
            machine,
        )
        return f"{result.choice} is right, " + ("changed" if result.changed else "as it was")

    def _routes(self) -> str:
        """The farm's other networks through the manager, which is their gateway."""
        gateway = manager.resolve(self._manager_name)
        wanted = tuple(
            routes.route_from_json({"network": str(network), "gateway": gateway}, "networks of the farm")
            for name, network in sorted(self._told.networks.items())
            if name != "cloud"
        )
        instance = self._own_instance
        if not all(routes.on_link(route.gateway, [(instance.subnet, instance.address)]) for route in wanted):
            converge.apply(Desired(routes=()), self._machine)
            raise _Skipped(f"{gateway} is in another subnet; the VPC's route table leads there")
        result = converge.apply(Desired(routes=wanted), self._machine)
        return f"{_list(wanted)}, " + ("changed" if result.changed else "as they were")

    def _drives(self) -> str:
        share = self._told.share
        if share is None:
            raise _Skipped("the farm names no share")
        return drives.map_share(share, self._machine.programs)

    def _manager(self) -> str:
        """Wait until the manager takes connections; on the manager itself that is its own service."""
        address = "127.0.0.1" if self._known["role"] == "manager" else manager.resolve(self._manager_name)
        port, limit = self._told.manager_port, self._told.limits.manager
        waits = f"nothing takes a connection at {address}:{port} yet"
        if not self._wait(lambda: manager.listens(address, port), limit, lambda: waits):
            raise FarmNodeError(
                "manager_unreachable",
                f"nothing took a connection at {address}:{port} for {limit:g} seconds. "
                "See that the manager runs and that its security group and firewall let this machine in.",
            )
        return f"{address}:{port} answers"

    def _services(self) -> str:
        name = services.MANAGER if self._known["role"] == "manager" else services.SERVER
        self._machine.log.info(f"starting {name}")
        self._machine.services.start(name)
        return f"{name} runs"

    def _registration(self) -> str:
        address, limits = manager.resolve(self._manager_name), self._told.limits
        own = self._own_instance.identity
        problem = ["the manager does not list it"]

        def registered() -> bool:
            try:
                listed = manager.servers(address, self._told.manager_port, self._machine.clock)
            except FarmNodeError as error:
                problem[0] = error.message
                return False
            states = [server.state for server in listed if server.handle == own.handle]
            problem[0] = f"the manager lists it as {states[0]}" if states else "the manager does not list it"
            return any(state != manager.ABSENT for state in states)

        if not self._wait(registered, limits.registration, lambda: problem[0], first=0.2):
            raise FarmNodeError(
                "not_registered",
                f"{own.name} ({own.mac}) is not registered at {address} after {limits.registration:g} seconds: "
                f"{problem[0]}. See backburner.log beside {backburner_xml.FILE}.",
            )
        return f"{address} lists {own.handle}"

    # -------------------------------------------------------------------------------------------------------- facts

    @property
    def _own_instance(self) -> Instance:
        assert self._instance is not None, "phase metadata comes first"
        return self._instance

    @property
    def _told(self) -> Farm:
        if self._farm is None:
            raise FarmNodeError(
                "bad_user_data", "the user data has no <farm> part; start the machine with the farm's launch template."
            )
        return self._farm

    @property
    def _manager_name(self) -> str:
        if self._told.manager is None:
            raise FarmNodeError("bad_user_data", "the <farm> part of the user data names no manager.")
        return self._told.manager

    def _may_be_manager(self) -> bool:
        """Whether an earlier boot made this machine the manager, for the case that this one finds out no role.

        A memory that cannot be understood is set aside, so that this boot can remember; it must not decide how the
        machine ends, so as long as no boot finds out a role it may have been the manager.
        """
        machine = self._machine
        remembered: dict[str, Any] = {}

        def recall() -> None:
            try:
                remembered.update(machine.state.load())
            except FarmNodeError as error:
                if error.reason != "broken_state":
                    raise
                machine.log.error(machine.state.set_aside(error.message))
                remembered.update(machine.state.load())

        self._keep_book(recall, _HELD)
        lost = not remembered or "memory" in remembered
        return remembered.get("role", "manager" if lost else None) == "manager"

    # ------------------------------------------------------------------------------------------------- bookkeeping

    def _limit(self, name: str) -> float:
        """Seconds for which the phase is tried again after an error that may pass."""
        limits = self._farm.limits if self._farm is not None else Limits()
        # The share is the manager's, which may be later than its nodes.
        own = {
            "tunnel": limits.tunnel,
            "drives": limits.manager,
            "manager": limits.manager,
            "services": limits.service,
            "registration": limits.registration,
        }
        return own.get(name, limits.setup)

    def _phase(self, name: str, run: Callable[[], str], limit: float) -> None:
        """Run one phase, again after what may pass; FarmNodeError when it cannot be done within ``limit`` seconds."""
        clock = self._machine.clock
        begun = clock.monotonic()
        record: dict[str, Any] = {"name": name, "started": clock.stamp(), "outcome": "running", "tries": 0}
        self._known["phase"] = name
        self._known["phases"].append(record)
        self._waiting_said = False
        self._machine.log.info(f"phase {name} begins")
        self._note()
        outcome, detail = "failed", ""
        try:
            outcome, detail = "done", self._try(run, record, begun + limit)
        except _Skipped as skipped:
            outcome, detail = "skipped", str(skipped)
        except FarmNodeError as error:
            detail = error.message
            raise
        finally:
            record |= {"seconds": round(clock.monotonic() - begun, 3), "outcome": outcome, "detail": detail}
            self._machine.log.info(f"phase {name} {outcome} after {record['seconds']} s: {detail}")

    def _try(self, run: Callable[[], str], record: dict[str, Any], end: float) -> str:
        clock = self._machine.clock
        begun = clock.monotonic()
        pause, most = _PAUSES
        while True:
            record["tries"] += 1
            try:
                return run()
            except FarmNodeError as error:
                if error.reason not in PASSING or clock.monotonic() + pause > end:
                    raise
                self._machine.log.error(f"phase {record['name']}, try {record['tries']}: {error}")
                problem = error.message
            if clock.monotonic() - begun >= _PATIENCE:
                self._say_waiting(problem)
            clock.sleep(pause)
            pause = min(pause * 2, most)

    def _wait(self, ready: Callable[[], bool], limit: float, problem: Callable[[], str], *, first: float = 0.1) -> bool:
        """`Clock.wait`, which tells the console once what it waits for when that takes long."""
        clock = self._machine.clock
        begun = clock.monotonic()

        def asked() -> bool:
            if ready():
                return True
            if clock.monotonic() - begun >= _PATIENCE:
                self._say_waiting(problem())
            return False

        return clock.wait(asked, limit, first=first)

    def _say_waiting(self, problem: str) -> None:
        if not self._waiting_said:
            self._waiting_said = True
            self._machine.serial.say(self._event("waiting") | {"phase": str(self._known["phase"]), "reason": problem})

    def _event(self, event: str) -> dict[str, Any]:
        """``event`` with what is known of this machine."""
        clock, known = self._machine.clock, self._known
        said = {"event": event, "version": 1, "time": clock.stamp()}
        said |= {key: known[key] for key in ("instance", "role", "name", "mac", "address") if key in known}
        return said | {"seconds": round(clock.monotonic() - self._begun, 3)}

    def _end(self, event: str, **more: str) -> dict[str, Any]:
        """Note how it ended; returns what to say about it."""
        said = self._event(event)
        used = round(self._machine.clock.processor(), 3)
        self._known |= {"event": event, "seconds": said["seconds"], "processor_seconds": used, **more}
        # `farmnode.watch` looks after machines of which it reads here that they are ready.
        self._note(_HELD if event == "ready" else 0.0)
        return said | more

    def _note(self, limit: float = 0.0) -> None:
        """Remember how far the boot is, and the role as soon as it is known."""
        known = self._known
        role = {"role": known["role"]} if "role" in known else {}
        self._keep_book(lambda: self._machine.state.update(boot=known, **role), limit)

    def _keep_book(self, work: Callable[[], None], limit: float) -> None:
        """Do ``work``, again for ``limit`` seconds: the disk is full, perhaps, or a virus scanner holds the file."""
        problem = ""

        def done() -> bool:
            nonlocal problem
            try:
                work()
            except FarmNodeError as error:
                problem = str(error)
                return False
            return True

        if not self._machine.clock.wait(done, limit):
            self._machine.log.error(problem)

    def _failed(self, code: str, reason: str, may_be_manager: bool) -> dict[str, Any]:
        machine = self._machine
        more = {"phase": str(self._known.get("phase")), "code": code, "reason": reason}
        event = self._end("failed", **more)
        machine.serial.say(event)
        role = self._known.get("role")
        # Without a role it can only be a machine that nobody will use: an hour of it costs as much as one of use.
        if role in farm.ROLES_THAT_END or (role is None and not may_be_manager):
            self._leave()
            machine.log.info("shutting down: this machine is of no use")
            self._shut_down()
        return event

    def _leave(self) -> None:
        """Take what an earlier boot registered off the manager's list."""
        instance, told = self._instance, self._farm
        if instance is not None and told is not None and told.manager is not None:  # else: which entry, on whose list?
            leaving.leave(self._machine, told.manager, told.manager_port, instance.identity.handle)

    def _shut_down(self) -> None:
        """Some tries, for a word on the log soon; `farmnode.watch` goes on where Windows refuses all of them."""
        times, pause = _ENDING
        for left in reversed(range(times)):
            try:
                self._machine.shut_down()
                return
            except FarmNodeError as error:
                self._machine.log.error(str(error))
            if left:
                self._machine.clock.sleep(pause)


def _list(wanted: tuple[Route, ...]) -> str:
    return ", ".join(map(str, wanted)) or "no routes wanted"
