"""win_service, win_service_info."""

from __future__ import annotations

from typing import Any

from rehearsal.windows.errors import WindowsError
from rehearsal.windows.modules.base import Call
from rehearsal.windows.powershell.cmdlets import start_service, stop_service
from rehearsal.windows.services import Service

_STARTS = {"auto": "auto", "manual": "demand", "disabled": "disabled", "delayed": "delayed"}
_START_NAMES = {start: mode for mode, start in _STARTS.items()}
_STATE_NAMES = {
    "stopped": "stopped",
    "start_pending": "start_pending",
    "stop_pending": "stop_pending",
    "running": "started",
}
_TYPES = {"win32_own_process": "own", "win32_share_process": "share"}
_TYPE_NAMES = {kind: name for name, kind in _TYPES.items()}
_PLAIN = {  # option -> field that is set as it is
    "description": "description",
    "display_name": "display_name",
    "error_control": "error_control",
    "failure_actions_on_non_crash_failure": "failure_on_non_crash",
    "failure_command": "failure_command",
    "failure_reboot_msg": "failure_reboot_message",
    "load_order_group": "load_order_group",
    "path": "path",
    "pre_shutdown_timeout_ms": "pre_shutdown_timeout",
    "sid_info": "sid_info",
}
_KEEP_WHEN_EMPTY = frozenset({"display_name", "error_control", "path", "sid_info"})
_NUMBERS = frozenset({"pre_shutdown_timeout_ms"})


def _account(service: Service) -> str:
    return "NT AUTHORITY\\SYSTEM" if service.account == "LocalSystem" else service.account


def _described(call: Call, service: Service) -> dict[str, Any]:
    """A service as the module's diff shows it."""
    return {
        "dependencies": list(service.dependencies),
        "description": service.description or None,
        "desktop_interact": service.interactive,
        "display_name": service.display_name,
        "error_control": service.error_control,
        "failure_actions": [{"type": kind, "delay_ms": delay} for kind, delay in service.failure_actions],
        "failure_actions_on_non_crash_failure": service.failure_on_non_crash,
        "failure_command": service.failure_command or None,
        "failure_reboot_msg": service.failure_reboot_message or None,
        "failure_reset_period_sec": service.failure_reset,
        "load_order_group": service.load_order_group,
        "name": service.name,
        "path": service.path,
        "pre_shutdown_timeout_ms": service.pre_shutdown_timeout,
        "required_privileges": list(service.required_privileges),
        "service_type": _TYPE_NAMES[service.type],
        "sid_info": service.sid_info,
        "start_mode": _START_NAMES[service.start],
        "state": _STATE_NAMES[call.host.services.status(service.name).state],
        "username": _account(service),
        "password": "REDACTED",
    }


async def win_service(call: Call) -> None:
    """Make, configure, start, stop or remove a service."""
    services = call.host.services
    service = services.find(call.text("name"))
    call.result["exists"] = False
    before: Any = _described(call, service) if service is not None else ""
    call.diff = {"before": before, "after": ""}
    if call.get("state") == "absent":
        if service is not None:
            if not call.check_mode:
                await stop_service(call.host, service.name, force=bool(call.get("force_dependent_services")))
                await services.delete(service.name)
            call.changed()
        return
    created = False
    if service is None:
        if not _wants_something(call):
            return
        if call.get("path") is None:
            message = f"Service '{call.text('name')}' is not installed, need to set 'path' to create a new service"
            raise call.fail(message)
        service = Service(name=call.text("name"), display_name=call.text("name"), path=call.expand(call.text("path")))
        service.start = "auto"  # New-Service makes automatic services
        created = True
        call.changed()
        if call.check_mode:
            call.diff["after"] = {"name": service.name, **{option: call.get(option) for option in _PLAIN}}
            _report(call, service, call.diff["after"])
            return
        services.create(service)
    configured = _configure(call, service, created=created)
    if not call.check_mode:
        services.save(service)
    after = _described(call, configured)
    if call.get("state") is not None:
        await _set_state(call, service)
        after["state"] = call.text("state") if call.check_mode else _described(call, service)["state"]
    if call.get("password") is not None and call.result.pop("password_changed", False):
        after["password"] = "CHANGED REDACTED"
    call.diff["after"] = after
    _report(call, service, after)


def _wants_something(call: Call) -> bool:
    defaults = {"dependency_action": "set", "desktop_interact": False}
    ignored = {"name", "force_dependent_services", "update_password"}
    return any(
        value is not None and value != defaults.get(option)
        for option, value in call.parameters.items()
        if option not in ignored
    )


def _report(call: Call, service: Service, after: dict[str, Any]) -> None:
    state = after.get("state") or "stopped"
    username = after.get("username")
    call.result.update(
        exists=True,
        dependencies=after.get("dependencies") or [],
        description=after.get("description"),
        desktop_interact=after.get("desktop_interact", False),
        display_name=after.get("display_name"),
        name=service.name,
        path=after.get("path"),
        start_mode=after.get("start_mode"),
        username="LocalSystem" if username == "NT AUTHORITY\\SYSTEM" else username,
        state="running" if state in ("started", "restarted") else state.replace("_", ""),
        can_pause_and_continue=False,
        depended_by=[dependent.name for dependent in call.host.services.dependents(service.name)],
    )


def _configure(call: Call, service: Service, *, created: bool) -> Service:
    """Set what the task names, in check mode on a copy; gives the service as it then is."""
    target = service if not call.check_mode else _copy(service)
    _set_account(call, target, created=created)
    _set_dependencies(call, target)
    for option, name in _PLAIN.items():
        value = call.get(option)
        if value is None or (option in _KEEP_WHEN_EMPTY and not value):
            continue
        if option == "path":
            value = call.expand(str(value))
        elif option in _NUMBERS:
            value = int(value)
        _set(call, target, name, value)
    if call.get("failure_actions") is not None:
        actions = [[action["type"], int(action.get("delay_ms") or 0)] for action in call.get("failure_actions")]
        _set(call, target, "failure_actions", actions)
    if call.get("failure_reset_period_sec") is not None:
        _set(call, target, "failure_reset", int(call.get("failure_reset_period_sec")))
    if call.get("required_privileges") is not None:
        wanted = list(call.get("required_privileges"))
        if set(wanted) != set(target.required_privileges):
            _set(call, target, "required_privileges", wanted)
    if call.get("start_mode"):
        _set(call, target, "start", _STARTS[call.text("start_mode")])
    if call.get("service_type"):
        if call.text("service_type") not in _TYPES:
            raise call.fail(f"rehearsal: the service type {call.text('service_type')} is not modelled")
        _set(call, target, "type", _TYPES[call.text("service_type")])
    if call.get("desktop_interact") and target.account != "LocalSystem":
        raise call.fail("Can only set 'desktop_interact' to true when 'username' equals 'SYSTEM'")
    _set(call, target, "interactive", bool(call.get("desktop_interact")))
    return target


def _copy(service: Service) -> Service:
    return Service(**{**vars(service), "dependencies": list(service.dependencies)})


def _set(call: Call, service: Service, name: str, value: Any) -> None:
    if getattr(service, name) != value:
        setattr(service, name, value)
        call.changed()


def _set_account(call: Call, service: Service, *, created: bool) -> None:
    password = call.get("password")
    update = created or call.get("update_password") == "always"
    if call.get("username"):
        accounts = call.host.accounts
        try:
            wanted, actual = accounts.sid(call.text("username")), accounts.sid(service.account)
        except WindowsError as error:
            raise call.fail(
                f'Unhandled exception while executing module: Exception calling "Translate" with "1" argument(s): '
                f'"{error}"'
            ) from None
        if wanted != actual:
            domain, _, name = accounts.name(wanted).rpartition("\\")
            local = domain.lower() == call.host.computer_name.lower()
            service.account = "LocalSystem" if wanted == "S-1-5-18" else f".\\{name}" if local else f"{domain}\\{name}"
            if wanted != "S-1-5-18":
                service.interactive = False
            update = True
            call.changed()
    if update and password:
        service.password = str(password)
        call.result["password_changed"] = True
        call.changed()


def _set_dependencies(call: Call, service: Service) -> None:
    wanted = call.get("dependencies")
    if wanted is None:
        return
    action = call.text("dependency_action")
    present = list(service.dependencies)
    added = [] if action == "remove" else [name for name in wanted if name not in present]
    removed = [] if action == "add" else [n for n in present if (n in wanted) == (action == "remove")]
    if added or removed:
        service.dependencies = [name for name in present if name not in removed] + added
        call.changed()


async def _set_state(call: Call, service: Service) -> None:
    state, force = call.text("state"), bool(call.get("force_dependent_services"))
    current = call.host.services.status(service.name).state
    if state == "paused":
        raise call.fail(f"failed to pause service {service.name}: The service does not support pausing")
    if (state == "started" and current != "running") or state == "restarted":
        call.changed()
        if not call.check_mode:
            if state == "restarted":
                await stop_service(call.host, service.name, force=force)
            await start_service(call.host, service.name)
    elif state == "stopped" and current != "stopped":
        call.changed()
        if not call.check_mode:
            await stop_service(call.host, service.name, force=force)


def win_service_info(call: Call) -> None:
    """What is known of one or all services."""
    services = call.host.services
    name = call.get("name")
    if name is None:
        chosen = [services.get(known) for known in services.names()]
    else:
        found = services.find(str(name))
        chosen = [] if found is None else [found]
    entries = []
    for service in chosen:
        status = services.status(service.name)
        entry = _described(call, service)
        entry.pop("password")
        running = status.state == "running"
        entry.update(
            checkpoint=0,
            controls_accepted=["stop", "shutdown"] if running else [],
            dependency_of=[dependent.name for dependent in services.dependents(service.name)],
            launch_protection="none",
            preferred_node=None,
            process_id=status.process_id,
            service_exit_code=0,
            service_flags=[],
            triggers=[],
            wait_hint_ms=0,
            win32_exit_code=0 if running else status.exit_code,
        )
        entries.append(entry)
    call.result.update(exists=bool(entries), services=entries)
