"""Stand-ins of the Windows modules that the roles use.

Each does to the model of the host what the real module does to Windows, in check mode too, and gives the real module's
return values and error texts; sources are the modules' own scripts of ansible.windows 3.8 and community.windows 3.3.
"""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

from rehearsal.interfaces import RehearsalError, Reply, Request
from rehearsal.windows.errors import NoStandIn, WindowsError
from rehearsal.windows.modules import accounts, files, network, packages, registry, services, system, tasks, web
from rehearsal.windows.modules.base import Call, ModuleFailed, StandIn
from rehearsal.windows.powershell.values import PsError
from rehearsal.winrm import specs

if TYPE_CHECKING:
    from rehearsal.windows.host import WindowsHost

TABLE: dict[str, StandIn] = {
    "ansible.windows.async_status": system.async_status,
    "ansible.windows.setup": system.setup,
    "ansible.windows.slurp": files.slurp,
    "ansible.windows.win_acl": accounts.win_acl,
    "ansible.windows.win_command": system.win_command,
    "ansible.windows.win_copy": files.win_copy,
    "ansible.windows.win_file": files.win_file,
    "ansible.windows.win_find": files.win_find,
    "ansible.windows.win_get_url": web.win_get_url,
    "ansible.windows.win_hosts": network.win_hosts,
    "ansible.windows.win_package": packages.win_package,
    "ansible.windows.win_ping": system.win_ping,
    "ansible.windows.win_reg_stat": registry.win_reg_stat,
    "ansible.windows.win_regedit": registry.win_regedit,
    "ansible.windows.win_service": services.win_service,
    "ansible.windows.win_service_info": services.win_service_info,
    "ansible.windows.win_share": accounts.win_share,
    "ansible.windows.win_stat": files.win_stat,
    "ansible.windows.win_user": accounts.win_user,
    "community.windows.win_firewall_rule": network.win_firewall_rule,
    "community.windows.win_scheduled_task": tasks.win_scheduled_task,
    "community.windows.win_unzip": packages.win_unzip,
}
"""Fully qualified name -> stand-in.  win_template, win_reboot and fetch have no script: they work through these."""


async def run(host: WindowsHost, request: Request, user: str) -> dict[str, Any]:
    """Run a module; gives its result, ``failed`` when its arguments are wrong, it fails or nothing stands in for it."""
    stand_in = TABLE.get(request.module)
    if stand_in is None:
        message = str(
            NoStandIn(f"module {request.module}", "use one that docs/rehearsal/windows.md lists, or write its stand-in")
        )
        host.log(message)
        return {"failed": True, "changed": False, "msg": message}
    internal = request.internal
    check_mode = bool(internal.get("check_mode"))
    try:
        checked = specs.check(
            request.module,
            request.arguments,
            script=request.script,
            ignore_unknown=bool(internal.get("ignore_unknown_opts")),
        )
        legacy = specs.specification(request.module, request.script).legacy
    except (specs.ModuleArgumentError, RehearsalError) as error:
        return {"failed": True, "changed": False, "msg": str(error)}
    invocation = {
        "module_args": {
            name: "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER" if name in checked.no_log and value is not None else value
            for name, value in checked.arguments.items()
        }
    }
    if check_mode and not checked.supports_check_mode:
        name = "" if legacy else f" ({request.module.rpartition('.')[2]})"
        return {"changed": False, "skipped": True, "msg": f"remote module{name} does not support check mode"}
    call = Call(
        host=host,
        parameters=checked.arguments,
        check_mode=check_mode,
        diff_mode=bool(internal.get("diff")),
        user=user,
        environment=request.environment,
        warnings=list(checked.warnings),
    )
    try:
        pending = stand_in(call)
        if inspect.isawaitable(pending):
            await pending
    except ModuleFailed as error:
        call.result.update(failed=True, msg=str(error))
    except (WindowsError, PsError, OSError) as error:
        call.result.update(failed=True, msg=f"Unhandled exception while executing module: {error}")
    except NoStandIn as error:
        host.log(str(error))
        call.result.update(failed=True, msg=str(error))
    if call.diff_mode and call.diff and not call.result.get("failed"):
        call.result["diff"] = call.diff
    if call.warnings:
        call.result["warnings"] = call.warnings
    if not legacy:
        call.result["invocation"] = invocation
    return call.result


def reply(result: dict[str, Any]) -> Reply:
    """A module's result as it comes over WinRM."""
    return Reply(1 if result.get("failed") else 0, json.dumps(result).encode() + b"\r\n")


__all__ = ["TABLE", "reply", "run"]
