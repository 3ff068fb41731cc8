"""The commands. Each prints one JSON object on one line: exit code 0 done, 1 failed, 2 wrong usage.

Each command imports its own modules: the watch lives for as long as its machine and is to be small, and a boot is to
be quick.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Final

from farmnode import manager
from farmnode.clock import Clock
from farmnode.errors import FarmNodeError
from farmnode.identity import normal_mac
from farmnode.machine import Machine
from farmnode.programs import Programs


def main(arguments: Sequence[str], *, make_machine: Callable[[], Machine] = Machine) -> int:
    """Run the command that ``arguments`` name."""
    options = _parser().parse_args(arguments)
    try:
        result = _probe(options) if options.command == "probe" else _COMMANDS[options.command](make_machine(), options)
    except FarmNodeError as error:
        result = error.as_json()
    except Exception as error:
        traceback.print_exc()
        result = FarmNodeError("unexpected", f"{type(error).__name__}: {error}").as_json()
    print(json.dumps(result, ensure_ascii=True))
    return 1 if result.get("failed") else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="farmnode", description="What runs on every Windows machine of the farm.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("boot", help="become what the farm wants this machine to be, then report")
    commands.add_parser("watch", help="after the boot: look after this machine until it ends")
    commands.add_parser("project", help="on the workstation: copy the project folder to the farm's share")
    commands.add_parser("seal", help="make this builder ready to become an image")
    commands.add_parser("smoke", help="prove on this builder that Backburner runs a job")
    command = commands.add_parser("frame", help="a task of the job of 'smoke'")
    command.add_argument("folder", help="where its file goes")
    command.add_argument("number", help="number of the task")
    command = commands.add_parser("converge", help="make the machine what the JSON on standard input says")
    command.add_argument("--check", action="store_true", help="change nothing, say what would change")
    command.add_argument("--diff", action="store_true", help="show backburner.xml before and after")
    commands.add_parser("status", help="what this machine knows about itself")
    command = commands.add_parser("servers", help="the servers that are registered at a manager")
    command.add_argument("--manager", default="127.0.0.1", help="its name or address (default: this machine)")
    command.add_argument("--port", type=int, default=manager.PORT, help="its port (default: %(default)s)")
    command.add_argument("--jobs", action="store_true", help="list the jobs of its queue as well")
    command.add_argument(
        "--wait",
        type=float,
        metavar="SECONDS",
        help="answer when all MAC addresses of the JSON list on standard input are registered, or after SECONDS",
    )
    command = commands.add_parser("probe", help="what this machine sees of the others: the list on standard input")
    command.add_argument("--system", choices=("windows", "linux"), default="windows", help="whose ping (%(default)s)")
    return parser


def _boot(machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    from farmnode.boot import Boot

    event = Boot(machine).run()
    return event if event["event"] == "ready" else event | {"failed": True, "msg": event["reason"]}


def _watch(machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    from farmnode.watch import watch

    return watch(machine)


def _project(machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    from farmnode import project

    return project.copy(machine)


def _seal(machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    from farmnode.seal import seal

    return seal(machine)


def _smoke(machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    from farmnode.smoke import smoke

    return smoke(machine)


def _frame(machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    from farmnode.smoke import write_frame

    return write_frame(options.folder, options.number, machine.computer_name)


def _converge(machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    from farmnode import converge

    desired = converge.complete(converge.parse_desired(_standard_input()), machine)
    return converge.apply(desired, machine, check=options.check).as_json(diff=options.diff)


def _probe(options: argparse.Namespace) -> dict[str, Any]:
    """The one command that is also for machines with Linux, which have none of the folders of a `Machine`."""
    from farmnode import probe

    clock = Clock()
    system = probe.Linux() if options.system == "linux" else probe.Windows(Programs(), clock)
    return {"results": probe.Prober(system, clock).run(_standard_input())}


def _standard_input() -> Any:
    try:
        return json.loads(sys.stdin.buffer.read().decode("utf-8-sig"))
    except ValueError as error:
        raise FarmNodeError("bad_desired_state", f"standard input is not JSON: {error}.") from error


def _status(machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    from farmnode.status import status

    return status(machine)


def _servers(machine: Machine, options: argparse.Namespace) -> dict[str, Any]:
    place = manager.resolve(options.manager), options.port
    answer: dict[str, Any] = {}
    if options.wait is not None:
        answer["servers"] = _rows(manager.wait_for(_expected(), *place, machine.clock, limit=options.wait))
    if options.jobs:
        listed, jobs = manager.queue(*place, machine.clock)
        answer |= {"servers": _rows(listed), "jobs": _rows(jobs)}
    return answer or {"servers": _rows(manager.servers(*place, machine.clock))}


def _rows(items: Sequence[manager.Server | manager.Job]) -> list[dict[str, str]]:
    return [item.as_json() for item in items]


def _expected() -> list[str]:
    expected = _standard_input()
    if not isinstance(expected, list) or not all(isinstance(mac, str) for mac in expected):
        raise FarmNodeError("bad_desired_state", f"standard input must be a list of MAC addresses, not {expected!r}.")
    return [normal_mac(mac) for mac in expected]


_COMMANDS: Final[dict[str, Callable[[Machine, argparse.Namespace], dict[str, Any]]]] = {
    "boot": _boot,
    "watch": _watch,
    "project": _project,
    "seal": _seal,
    "smoke": _smoke,
    "frame": _frame,
    "converge": _converge,
    "status": _status,
    "servers": _servers,
}
