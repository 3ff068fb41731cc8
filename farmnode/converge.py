"""Making one machine what it shall be: its ``backburner.xml``, its routes, and whether it forwards for others.

`apply` serves both the boot and the command ``converge``, which the module ``renderfarm.cloud.backburner_node`` runs.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Final

from farmnode import backburner_xml, first_run, forwarding, manager, null_routes, paths, routes, services
from farmnode.errors import FarmNodeError
from farmnode.farm import is_port
from farmnode.identity import Identity, identity_from_json
from farmnode.machine import Machine
from farmnode.manager import PORT
from farmnode.routes import Plan, Route

_KEYS: Final = {
    "manager", "manager_port", "server_port", "network_mask", "server_name", "identity", "path", "routes",
    "forwarding", "null_routes",
}  # fmt: skip
_WITHOUT_MANAGER: Final = {"routes", "forwarding", "null_routes"}
_NETWORK_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")


@dataclass(frozen=True)
class Desired:
    """What a machine shall be. What is None is left alone; where ``manager`` is None, that is backburner.xml."""

    manager: str | None = None
    manager_port: int = PORT
    server_port: int = 3233
    network_mask: str | None = None
    server_name: str | None = None
    identity: Identity | None = None
    path: Path | None = None
    routes: tuple[Route, ...] | None = None
    forwarding: bool | None = None
    null_routes: tuple[IPv4Network, ...] | None = None

    def elements(self) -> dict[str, str]:
        """The values to set in backburner.xml, by element name."""
        name = self.server_name or (self.identity.name if self.identity else None)
        wanted = {
            "ManagerName": self.manager,
            "ManagerPort": str(self.manager_port),
            "ServerPort": str(self.server_port),
            "ServerName": name,
            "NetworkMask": self.network_mask,
        }
        return {element: value for element, value in wanted.items() if value is not None}


@dataclass(frozen=True)
class Result:
    """What `apply` did, or would do."""

    edit: backburner_xml.Edit | None
    plan: Plan | None
    backup: Path | None
    identity: Identity | None
    forwarding: forwarding.Plan | None = None
    null_routes: null_routes.Plan | None = None
    choice: backburner_xml.Choice | None = None

    @property
    def changed(self) -> bool:
        plans = (self.plan, self.forwarding, self.null_routes)
        return bool(self.edit and self.edit.changed) or any(plan is not None and plan.changes for plan in plans)

    def as_json(self, *, diff: bool) -> dict[str, Any]:
        plan = self.plan or Plan()
        data: dict[str, Any] = {
            "changed": self.changed,
            "path": paths.shown(self.edit.path) if self.edit else None,
            "also_found": [paths.shown(path) for path in self.choice.others] if self.choice else [],
            "identity": self.identity.as_json() if self.identity else None,
            "changes": {name: list(pair) for name, pair in self.edit.changes.items()} if self.edit else {},
            "routes": {
                "added": [route.as_json() for route in (*plan.add, *plan.activate)],
                "removed": [route.as_json() for route in plan.remove],
                "kept": [route.as_json() for route in plan.keep if route not in plan.activate],
            },
            "forwarding": self.forwarding.as_json() if self.forwarding else None,
            "null_routes": (self.null_routes or null_routes.Plan()).as_json(),
            "backup": paths.shown(self.backup) if self.backup else None,
        }
        if diff:
            data["diff"] = {
                "before": self.edit.before.text if self.edit else "",
                "after": self.edit.after if self.edit else "",
            }
        return data


def parse_desired(data: Any) -> Desired:
    """The desired state that ``data`` (from JSON) describes. FarmNodeError for anything that is not exactly that."""
    if not isinstance(data, dict):
        raise FarmNodeError("bad_desired_state", f"the desired state is a JSON object, not {data!r}.")
    unknown = sorted(set(data) - _KEYS)
    if unknown:
        raise FarmNodeError(
            "bad_desired_state", f"the desired state has {', '.join(unknown)}; known are {', '.join(sorted(_KEYS))}."
        )
    data = {key: value for key, value in data.items() if value is not None}
    if "manager" not in data and not (data and set(data) <= _WITHOUT_MANAGER):
        raise FarmNodeError(
            "bad_desired_state",
            f"the desired state names no manager; without one it may have {', '.join(sorted(_WITHOUT_MANAGER))} only.",
        )
    return Desired(
        manager=_name(data, "manager"),
        manager_port=_port(data, "manager_port", Desired.manager_port),
        server_port=_port(data, "server_port", Desired.server_port),
        network_mask=_mask(data),
        server_name=_name(data, "server_name"),
        identity=identity_from_json(data["identity"], "identity") if "identity" in data else None,
        path=_path(data),
        routes=_routes(data),
        forwarding=_switch(data, "forwarding"),
        null_routes=_null_routes(data),
    )


def _name(data: dict[str, Any], key: str) -> str | None:
    value = data.get(key)
    if value is not None and not (isinstance(value, str) and _NETWORK_NAME.fullmatch(value)):
        raise FarmNodeError("bad_desired_state", f"{key} must be a host name or an address, not {value!r}.")
    return value


def _port(data: dict[str, Any], key: str, default: int) -> int:
    value = data.get(key, default)
    if not is_port(value):
        raise FarmNodeError("bad_desired_state", f"{key} must be a port number, not {value!r}.")
    return int(value)


def _mask(data: dict[str, Any]) -> str | None:
    value = data.get("network_mask")
    if value is None:
        return None
    try:
        # IPv4Network would take 0.0.0.255 as well, and a number of bits.
        if not isinstance(value, str) or str(IPv4Network(f"0.0.0.0/{IPv4Address(value)}").netmask) != value:
            raise ValueError
    except ValueError:
        raise FarmNodeError(
            "bad_desired_state", f"network_mask must be a mask such as 255.255.255.0, not {value!r}."
        ) from None
    return value


def _path(data: dict[str, Any]) -> Path | None:
    value = data.get("path")
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise FarmNodeError("bad_desired_state", f"path must be the path of backburner.xml, not {value!r}.")
    return paths.real(value)


def _routes(data: dict[str, Any]) -> tuple[Route, ...] | None:
    value = data.get("routes")
    if value is None:
        return None
    if not isinstance(value, list):
        raise FarmNodeError("bad_desired_state", f"routes must be a list, not {value!r}.")
    wanted = tuple(routes.route_from_json(each, "routes") for each in value)
    if len(set(wanted)) != len(wanted):
        raise FarmNodeError("bad_desired_state", "routes names a route twice.")
    return wanted


def _switch(data: dict[str, Any], key: str) -> bool | None:
    value = data.get(key)
    if value is not None and not isinstance(value, bool):
        raise FarmNodeError("bad_desired_state", f"{key} must be true or false, not {value!r}.")
    return value


def _null_routes(data: dict[str, Any]) -> tuple[IPv4Network, ...] | None:
    value = data.get("null_routes")
    if value is None:
        return None
    if not isinstance(value, list):
        raise FarmNodeError("bad_desired_state", f"null_routes must be a list, not {value!r}.")
    wanted = tuple(null_routes.network_from_json(each, "null_routes") for each in value)
    if len(set(wanted)) != len(wanted):
        raise FarmNodeError("bad_desired_state", "null_routes names a network twice.")
    return wanted


def complete(desired: Desired, machine: Machine) -> Desired:
    """``desired`` with what is left out taken from the metadata service: identity, and with it the mask."""
    if desired.manager is None or desired.identity is not None:
        return desired
    try:
        instance = machine.metadata.instance()
    except FarmNodeError as error:
        raise FarmNodeError(
            error.reason, f"{error.message} Outside of EC2 give 'identity' (mac, name, address)."
        ) from error
    return replace(
        desired,
        identity=instance.identity,
        network_mask=desired.network_mask or str(instance.subnet.netmask),
    )


def apply(desired: Desired, machine: Machine, *, check: bool = False) -> Result:
    """Make the machine what ``desired`` says, or with ``check`` only find out what that would change.

    Services that run while the file must change are stopped for it and started again ("stop the manager and server
    before editing", 3ds Max Help, "backburner.xml"), also when the edit fails.
    """
    with contextlib.nullcontext() if check else machine.alone():
        # Everything that may be refused is, before anything is changed.
        plan = _plan_routes(desired, machine)
        nulls = _plan_null_routes(desired, machine)
        forwards = _plan_forwarding(desired, machine)
        choice = _choose(desired, machine, make=not check)
        edit = _edit(desired, choice.path, machine) if choice is not None else None
        backup = None
        if not check:
            if choice is not None:
                machine.log.info(f"backburner.xml is {choice}")
            if edit is not None:
                edit, backup = _write(edit, desired, machine)
            if plan is not None:
                _set_routes(plan, machine)
            if nulls is not None:
                _set_null_routes(nulls, machine)
            if forwards is not None and forwards.changes:
                machine.forwarding.apply(forwards)
                machine.log.info(f"forwarding: {forwards.as_json()}")
        return Result(edit, plan, backup, desired.identity, forwards, nulls, choice)


def _plan_routes(desired: Desired, machine: Machine) -> Plan | None:
    if desired.routes is None:
        return None
    active = machine.route_table.active()
    routes.require_sound(desired.routes, active.links)
    present = machine.route_table.persistent()
    return routes.plan(
        desired.routes, machine.state.routes(), {route for route in present if not null_routes.is_null(route)}, active
    )


def _set_routes(plan: Plan, machine: Machine) -> None:
    if not plan.changes and plan.ours == machine.state.routes():
        return
    # Remembered before they are set: a power cut in between must not leave a route that nobody calls his own.
    _remember_routes(plan.ours | set(plan.remove), machine)
    machine.route_table.apply(plan)
    _remember_routes(plan.ours, machine)
    for verb, changed in (("added", plan.add), ("removed", plan.remove), ("activated", plan.activate)):
        for route in changed:
            machine.log.info(f"route {verb}: {route}")


def _plan_forwarding(desired: Desired, machine: Machine) -> forwarding.Plan | None:
    if desired.forwarding is None:
        return None
    return forwarding.plan(desired.forwarding, machine.forwarding.router(), machine.forwarding.interfaces())


def _plan_null_routes(desired: Desired, machine: Machine) -> null_routes.Plan | None:
    if desired.null_routes is None:
        return None
    active = machine.route_table.active()
    null_routes.require_sound(desired.null_routes, active.links)
    persistent = null_routes.of_routes(machine.route_table.persistent())
    return null_routes.plan(desired.null_routes, machine.state.null_routes(), persistent, dict(active.null))


def _set_null_routes(change: null_routes.Plan, machine: Machine) -> None:
    if not change.changes and change.ours == machine.state.null_routes():
        return
    # Remembered before they are set, as routes are.
    _remember_null_routes(change.ours | set(change.remove), machine)
    active = machine.route_table.active()
    present = null_routes.of_routes(machine.route_table.persistent()) | dict(active.null)
    null_routes.apply(change, machine.programs, active.default, present)
    there = dict(machine.route_table.active().null)
    wrong = sorted({*change.add, *change.renew} - there.keys() | set(change.remove) & there.keys())
    if wrong:
        raise FarmNodeError("route", f"route.exe did not change the null routes {', '.join(map(str, wrong))}.")
    _remember_null_routes(change.ours, machine)
    machine.log.info(f"null routes: {change.as_json()}")


def _remember_null_routes(ours: frozenset[IPv4Network], machine: Machine) -> None:
    machine.state.update(null_routes=[str(network) for network in sorted(ours)])


def _remember_routes(ours: frozenset[Route], machine: Machine) -> None:
    machine.state.update(routes=[route.as_json() for route in sorted(ours)])


def _choose(desired: Desired, machine: Machine, *, make: bool) -> backburner_xml.Choice | None:
    """Which file counts, None when nobody asks. With ``make`` Backburner writes it where it is missing."""
    if desired.manager is None:
        return None
    manager.resolve(desired.manager)
    if desired.path is not None:
        return backburner_xml.Choice(desired.path, (), "as was asked for")
    account = machine.services.account(services.SERVER)
    try:
        return backburner_xml.find(account)
    except FarmNodeError as missing:
        if not make or account is None:
            raise
        machine.log.info(str(missing))
        first_run.make_file(machine, lambda: _incomplete(account))
        return backburner_xml.find(account)


def _edit(desired: Desired, path: Path, machine: Machine) -> backburner_xml.Edit:
    change = backburner_xml.edit(path, _old_identities(machine), desired.identity, desired.elements())
    if change.changed:
        backburner_xml.require_writable(path)
    return change


def _incomplete(account: str) -> FarmNodeError | None:
    try:
        backburner_xml.edit(backburner_xml.find(account).path, [], None, {})
    except FarmNodeError as error:
        return error
    return None


def _old_identities(machine: Machine) -> list[Identity]:
    """Whose identity the file may carry: the builder's, and the one that farmnode wrote last."""
    return [identity for identity in (machine.state.image(), machine.state.identity()) if identity is not None]


def _write(edit: backburner_xml.Edit, desired: Desired, machine: Machine) -> tuple[backburner_xml.Edit, Path | None]:
    if not edit.changed:
        _remember(edit, desired, machine)
        return edit, None
    with _services_stopped(f"{paths.shown(edit.path)} must change", machine):
        # Once more, for Backburner may have written its file while it stopped.
        again = backburner_xml.edit(edit.path, _old_identities(machine), desired.identity, desired.elements())
        backup = backburner_xml.write(again) if again.changed else None
        _remember(again, desired, machine)
        machine.log.info(f"wrote {paths.shown(edit.path)}: {_summary(again)}")
    return again, backup


@contextlib.contextmanager
def _services_stopped(why: str, machine: Machine) -> Iterator[None]:
    """Backburner's services do not run meanwhile; those that did run afterwards, also after an error."""
    running = [name for name in (services.SERVER, services.MANAGER) if machine.services.describe(name) == "running"]
    for name in running:
        machine.log.info(f"stopping {name}: {why}")
        machine.services.stop(name)
    try:
        yield
    except FarmNodeError:
        for name in reversed(running):
            try:
                machine.services.start(name)
            except FarmNodeError as error:  # the first error says more
                machine.log.error(f"{name} was not started again: {error}")
        raise
    for name in reversed(running):
        machine.log.info(f"starting {name} again")
        machine.services.start(name)


def _remember(edit: backburner_xml.Edit, desired: Desired, machine: Machine) -> None:
    known = {
        "identity": desired.identity.as_json() if desired.identity else None,
        "backburner_xml": paths.shown(edit.path),
    }
    remembered = machine.state.load()
    if any(remembered.get(key) != value for key, value in known.items()):
        machine.state.update(**known)


def _summary(edit: backburner_xml.Edit) -> str:
    changes = [f"{name} {old!r} -> {new!r}" for name, (old, new) in edit.changes.items()]
    return ", ".join([f"{edit.replaced} mentions of another identity replaced", *changes])
