"""win_scheduled_task."""

from __future__ import annotations

import copy
import difflib
import re
from datetime import datetime
from typing import Any

from rehearsal.windows.errors import WindowsError
from rehearsal.windows.modules.base import Call
from rehearsal.windows.tasks import DEFAULT_SETTINGS, seconds

_LOGON = {
    "none": 0, "password": 1, "s4u": 2, "interactive_token": 3, "group": 4, "service_account": 5,
    "interactive_token_or_password": 6,
}  # fmt: skip
_LOGON_NAMES = {number: f"TASK_LOGON_{name.upper()}" for name, number in _LOGON.items()}
_RUN_LEVEL_NAMES = {0: "TASK_RUNLEVEL_LUA", 1: "TASK_RUNLEVEL_HIGHEST"}
_SERVICE_ACCOUNTS = ("S-1-5-18", "S-1-5-19", "S-1-5-20")
_COMMON = ("enabled", "end_boundary", "execution_time_limit", "repetition", "start_boundary")
_REPETITION = ("interval", "duration", "stop_at_duration_end")
# Trigger type -> mandatory and optional keys.
_TRIGGERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "boot": ((), (*_COMMON, "delay")),
    "daily": (("start_boundary",), (*_COMMON, "days_interval", "random_delay")),
    "event": (("subscription",), (*_COMMON, "delay")),
    "idle": ((), _COMMON),
    "logon": ((), (*_COMMON, "delay", "user_id")),
    "monthlydow": (
        ("start_boundary",),
        (*_COMMON, "days_of_week", "months_of_year", "random_delay", "weeks_of_month", "run_on_last_week_of_month"),
    ),
    "monthly": (
        ("days_of_month", "start_boundary"),
        (*_COMMON, "months_of_year", "random_delay", "run_on_last_day_of_month"),
    ),
    "registration": ((), (*_COMMON, "delay")),
    "time": (("start_boundary",), (*_COMMON, "random_delay")),
    "weekly": (("days_of_week", "start_boundary"), (*_COMMON, "random_delay", "weeks_interval")),
    "session_state_change": ((), (*_COMMON, "delay", "state_change", "user_id")),
}
_REGISTRATION = ("author", "date", "description", "source", "version")
_SETTINGS = (
    "allow_demand_start",
    "allow_hard_terminate",
    "compatibility",
    "delete_expired_task_after",
    "disallow_start_if_on_batteries",
    "execution_time_limit",
    "enabled",
    "hidden",
    "multiple_instances",
    "priority",
    "restart_count",
    "restart_interval",
    "run_only_if_idle",
    "run_only_if_network_available",
    "start_when_available",
    "stop_if_going_on_batteries",
    "wake_to_run",
)


def _pascal(snake: str) -> str:
    text = re.sub(r"_(\w)", lambda match: match[1].upper(), snake)
    return text[0].upper() + text[1:]


def win_scheduled_task(call: Call) -> None:
    """Make, change or remove a scheduled task."""
    name = call.text("name")
    if re.search(r'[\\/:*?"<>|]', name):
        raise call.fail(f"Invalid task name '{name}'. The following characters are not valid: \\/:*?\"<>|")
    user_sid = call.sid(call.text("username")) if call.get("username") else None
    group_sid = call.sid(call.text("group")) if call.get("group") else None
    logon = _check_principal(call, user_sid)
    actions = _actions(call)
    triggers = _triggers(call)
    folder = call.text("path")
    folder = folder if folder.startswith("\\") else "\\" + folder
    path = folder.rstrip("\\") + "\\" + name
    tasks = call.host.tasks
    definition = tasks.get(path)
    prepared = ""
    if call.get("state") == "absent":
        if definition is not None:
            if not call.check_mode:
                tasks.delete(path)
            prepared = f"-[Task]\n-{path}\n"
            call.changed()
    else:
        created = definition is None
        if definition is None:
            if not actions:
                raise call.fail(
                    "cannot create a task with no actions, set at least one action with a path to an executable"
                )
            definition = _new(call, actions, user_sid)
            prepared = _creation(path, actions)
            call.changed()
        if not (created and call.check_mode):
            changes = _compare(call, definition, actions, triggers, logon, user_sid, group_sid)
            if changes or (call.get("password") is not None and call.get("update_password")):
                call.changed()
                prepared = "\n".join([*([prepared] if prepared else []), *changes]).strip()
            if not call.check_mode and call.result["changed"]:
                tasks.register(path, definition)
    if call.diff_mode:
        call.result["diff"] = {"prepared": prepared} if prepared else {}


def _check_principal(call: Call, user_sid: str | None) -> int | None:
    if call.get("username") is not None and call.get("group") is not None:
        raise call.fail("username and group can not be set at the same time")
    name = call.get("logon_type")
    if name is None:
        return None
    if name == "s4u" and call.get("password") is None:
        raise call.fail("password must be set when logon_type=s4u")
    if name == "group" and call.get("group") is None:
        raise call.fail("group must be set when logon_type=group")
    if name == "service_account" and user_sid not in _SERVICE_ACCOUNTS:
        raise call.fail("username must be SYSTEM, LOCAL SERVICE or NETWORK SERVICE when logon_type=service_account")
    return _LOGON[str(name)]


def _actions(call: Call) -> list[dict[str, Any]] | None:
    if call.get("actions") is None:
        return None
    actions = []
    for entry in call.get("actions"):
        if "path" not in entry:
            raise call.fail("action entry must contain the key 'path'")
        _refuse_unknown(call, "action", entry, ("path", "arguments", "working_directory"))
        actions.append(
            {key: entry[key] for key in ("path", "arguments", "working_directory") if entry.get(key) is not None}
        )
    return actions


def _refuse_unknown(call: Call, kind: str, entry: dict[str, Any], known: tuple[str, ...]) -> None:
    """The real module ignores such a key with a warning, with which a typing error would pass."""
    for key in entry:
        if key not in known and key != "type":
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            valid = "', '".join(known)
            hint = f"did you mean '{near[0]}'?" if near else f"valid keys are '{valid}'"
            raise call.fail(f"key '{key}' for {kind} entry is not valid and would be ignored on Windows: {hint}")


def _triggers(call: Call) -> list[dict[str, Any]] | None:
    if call.get("triggers") is None:
        return None
    types = "', '".join(_TRIGGERS)
    triggers = []
    for entry in call.get("triggers"):
        trigger = copy.deepcopy(dict(entry))
        if "type" not in trigger:
            raise call.fail(f"a trigger entry must contain a key 'type' with a value of '{types}'")
        if trigger["type"] not in _TRIGGERS:
            raise call.fail(
                f"the specified trigger type '{trigger['type']}' is not valid, type must be a value of '{types}'"
            )
        mandatory, optional = _TRIGGERS[trigger["type"]]
        for key in mandatory:
            if key not in trigger:
                needed = "', '".join(mandatory)
                raise call.fail(f"mandatory key '{key}' for trigger is not set, mandatory keys are '{needed}'")
        _refuse_unknown(call, "trigger", trigger, mandatory + optional)
        _refuse_unknown(call, "repetition", trigger.get("repetition") or {}, _REPETITION)
        _check_times(call, trigger)
        triggers.append({key: value for key, value in trigger.items() if value is not None})
    return triggers


def _check_times(call: Call, trigger: dict[str, Any]) -> None:
    for key in ("start_boundary", "end_boundary"):
        if key in trigger:
            try:
                trigger[key] = datetime.fromisoformat(str(trigger[key])).isoformat(timespec="seconds")
            except ValueError:
                value = trigger[key]
                raise call.fail(
                    f"trigger option '{key}' must be in the format 'YYYY-MM-DDThh:mm:ss' format but was '{value}'"
                ) from None

    def duration(key: str, value: Any) -> float:
        try:
            return seconds(str(value))
        except ValueError:
            message = f"trigger option '{key}' must be in the XML duration format but was '{value}'"
            raise call.fail(message) from None

    for key in ("execution_time_limit", "delay", "random_delay"):
        if key in trigger:
            duration(key, trigger[key])
    repetition = trigger.get("repetition") or {}
    spans = {key: duration(key, repetition[key]) for key in ("interval", "duration") if repetition.get(key) is not None}
    if len(spans) == 2 and spans["interval"] > spans["duration"]:
        raise call.fail(
            f"trigger repetition option 'interval' value '{repetition['interval']}' must be less than or equal to "
            f"'duration' value '{repetition['duration']}'"
        )


def _new(call: Call, actions: list[dict[str, Any]], user_sid: str | None) -> dict[str, Any]:
    """A task as it is before the task's options are set: its user is the one that runs the module."""
    if user_sid is None:
        user = call.host.accounts.user(call.user)
        user_sid = "S-1-5-18" if user is None else call.host.accounts.sid_of_user(user)
    logon = _LOGON["service_account" if user_sid in _SERVICE_ACCOUNTS else "interactive_token"]
    return {
        "actions": actions,
        "triggers": [],
        "principal": {"user_sid": user_sid, "group_sid": None, "LogonType": logon, "RunLevel": 0, "DisplayName": None},
        "settings": dict(DEFAULT_SETTINGS),
        "registration": {_pascal(name): None for name in _REGISTRATION},
    }


def _creation(path: str, actions: list[dict[str, Any]]) -> str:
    text = f"+[Task]\n+{path}\n\n[Actions]\n"
    for action in actions:
        text += f"+action[0] = {{\n  +Type=TASK_ACTION_EXEC,\n  +Path={action['path']}\n"
        for key in ("arguments", "working_directory"):
            if action.get(key) is not None:
                text += f"  +{_pascal(key)}={action[key]}\n"
        text += "+}\n"
    return text


def _compare(
    call: Call,
    definition: dict[str, Any],
    actions: list[dict[str, Any]] | None,
    triggers: list[dict[str, Any]] | None,
    logon: int | None,
    user_sid: str | None,
    group_sid: str | None,
) -> list[str]:
    """Put what the task names into ``definition``; gives the lines of the diff, none when nothing differs."""
    lines: list[str] = []

    def section(title: str, changes: list[str]) -> None:
        if changes:
            lines.extend([f"[{title}]", *changes, "\n"])

    if actions is not None:
        section("Actions", _compare_list("action", definition["actions"], actions))
        definition["actions"] = actions
    principal = definition["principal"]
    level = {"limited": 0, "highest": 1}.get(call.text("run_level"))
    changes = _compare_values(principal, {"DisplayName": call.get("display_name")}, {})
    changes += _compare_values(principal, {"LogonType": logon}, _LOGON_NAMES)
    changes += _compare_values(principal, {"RunLevel": level}, _RUN_LEVEL_NAMES)
    for wanted, own, other, title in (
        (user_sid, "user_sid", "group_sid", "UserId"),
        (group_sid, "group_sid", "user_sid", "GroupId"),
    ):
        if wanted is not None and (principal[own] != wanted or principal[other] is not None):
            old = [f"-{'UserId' if key == 'user_sid' else 'GroupId'}={_account(call, principal[key])}"
                   for key in (own, other) if principal[key] is not None]  # fmt: skip
            changes.append("\n".join([*old[:1], f"+{title}={_account(call, wanted)}"]))
            principal[own], principal[other] = wanted, None
    section("Principal", changes)
    registration = {_pascal(name): call.get(name) for name in _REGISTRATION}
    section("Registration Info", _compare_values(definition["registration"], registration, {}))
    settings = {_pascal(name): call.get(name) for name in _SETTINGS}
    section("Settings", _compare_values(definition["settings"], settings, {}))
    for key in ("ExecutionTimeLimit", "RestartInterval"):
        try:
            if definition["settings"][key]:
                seconds(definition["settings"][key])
        except ValueError:
            value = definition["settings"][key]
            raise call.fail(
                f"failed to set Settings property '{key}' to '{value}': (8,{key}) value is incorrect"
            ) from None
    if triggers is not None:
        section("Triggers", _compare_list("trigger", definition["triggers"], triggers))
        definition["triggers"] = triggers
    return lines


def _account(call: Call, sid: str) -> str:
    try:
        return call.host.accounts.name(sid)
    except WindowsError:
        return sid


def _compare_values(present: dict[str, Any], wanted: dict[str, Any], names: dict[int, str]) -> list[str]:
    changes = []
    for name, value in wanted.items():
        if value is not None and present[name] != value:
            old, new = (
                (names.get(present[name], present[name]), names.get(value, value)) if names else (present[name], value)
            )
            changes.append(f"-{name}={'' if old is None else old}\n+{name}={new}")
            present[name] = value
    return changes


def _compare_list(kind: str, present: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> list[str]:
    changes = []
    for index, entry in enumerate(wanted):
        old = present[index] if index < len(present) else None
        lines = []
        if old is None or old.get("type") != entry.get("type"):
            lines = [f"+{_pascal(key)}={value}" for key, value in entry.items()]
            if old is not None:
                lines = [f"-{_pascal(key)}={value}" for key, value in old.items()] + lines
            mark = "+" if old is None else ""
            changes.append(f"{mark}{kind}[{index}] = {{\n  " + ",\n  ".join(lines) + f"\n{mark}}}")
            continue
        defaults = {"enabled": True}
        for key, value in entry.items():
            before = old.get(key, defaults.get(key))
            if before != value:
                lines += [f"-{_pascal(key)}={'' if before is None else before}", f"+{_pascal(key)}={value}"]
        if lines:
            changes.append(f"{kind}[{index}] = {{\n  " + ",\n  ".join(lines) + "\n}")
    for index in range(len(wanted), len(present)):
        lines = [f"-{_pascal(key)}={value}" for key, value in present[index].items()]
        changes.append(f"-{kind}[{index}] = {{\n  " + ",\n  ".join(lines) + "\n-}")
    return changes
