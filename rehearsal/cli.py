"""``python -m rehearsal``: start a rehearsal, run commands in it, look at it, break it, end it."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rehearsal import control, faults
from rehearsal.interfaces import RehearsalError
from rehearsal.network import netns, plan
from rehearsal.state import DEFAULT, LOG, Folder, already_up
from rehearsal.tables import text_table

# what is called -> the Debian package that brings it
PROGRAMS = {
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "openvpn": "openvpn",
    "unshare": "util-linux",
}
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_END_SECONDS = 30.0
_FOREIGN = (  # what would lead a command to the user's own account, or out of the rehearsal
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_ENDPOINT_URL_EC2",
    "AWS_ENDPOINT_URL_SSM",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    *(name for proxy in ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy") for name in (proxy, proxy.upper())),
    "no_proxy",
)


def require_root() -> None:
    """RehearsalError unless this process may make namespaces."""
    if os.geteuid() != 0:
        raise RehearsalError("a rehearsal makes network namespaces and so needs root: run the same with sudo")


def require_programs() -> None:
    """RehearsalError that names the Debian packages of what is missing."""
    missing = {name: package for name, package in PROGRAMS.items() if not shutil.which(name, path=_path())}
    if missing:
        packages = " ".join(sorted(set(missing.values())))
        raise RehearsalError(f"{', '.join(sorted(missing))} not found; install with: sudo apt-get install {packages}")


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"


# ---------------------------------------------------------------------------------------------------- up


def up(folder: Folder, *, records: bool = False) -> int:
    """Start the daemon, show how it gets on, and leave it running.

    :param records: render nodes are records (`rehearsal.records`).
    """
    require_root()
    require_programs()
    folder.prepare()
    if folder.held():
        raise RehearsalError(already_up(folder.path))
    started = time.monotonic()
    here, there = socket.socketpair()
    command = [
        *("unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--"),
        *(sys.executable, "-m", "rehearsal", "serve", "--report", str(there.fileno())),
        *(["--records"] if records else []),
        str(folder.path),
    ]
    root = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "PATH": _path(), "PYTHONPATH": root, "PYTHONUNBUFFERED": "1"}
    with (folder.path / LOG).open("ab") as log:
        daemon = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=environment,
            pass_fds=[there.fileno()],
            start_new_session=True,
        )
    there.close()
    ready: dict[str, Any] | None = None
    try:
        with here, here.makefile("r", encoding="utf-8") as reports:
            for line in reports:
                report = json.loads(line)
                if "error" in report:
                    raise RehearsalError(report["error"])
                if "ready" in report:
                    ready = report["ready"]
                    break
                print(f"  {report['progress']}", flush=True)
        if ready is None:
            raise RehearsalError(f"the rehearsal ended before it was up; its last words: {folder.path / LOG}")
    except BaseException:
        daemon.kill()  # takes everything inside with it
        daemon.wait()
        folder.remove_state()
        raise
    print(_standing(folder, ready, time.monotonic() - started))
    return 0


def _standing(folder: Folder, ready: Mapping[str, Any], seconds: float) -> str:
    where = "" if folder.path == DEFAULT.resolve() else f"--dir {folder.path} "
    return f"""The rehearsal is up ({seconds:.1f} s); nothing of it costs anything.
  AWS region   {ready["region"]} at {ready["endpoint"]} (EC2, SSM)
  studio       {plan.LAN}: workstation {plan.LAN_HOSTS[plan.WORKSTATION]} (Windows), PC {plan.LAN_HOSTS[plan.PC]}, \
controller {plan.LAN_HOSTS[plan.CONTROLLER]}
  everything   {folder.path} (state.json, logs, disks)
Next: python -m rehearsal exec {where}-- ansible-playbook bake-ami.yml
End:  python -m rehearsal down{" " + where.strip() if where else ""}"""


# ---------------------------------------------------------------------------------------------------- exec


def environment(state: Mapping[str, Any], folder: Folder, base: Mapping[str, str]) -> dict[str, str]:
    """The environment of a command on the controller: the simulated region, and no way to a real account."""
    values = {name: value for name, value in base.items() if name not in _FOREIGN}
    values.update(
        AWS_ENDPOINT_URL=state["endpoint"],
        AWS_ACCESS_KEY_ID="rehearsal",
        AWS_SECRET_ACCESS_KEY="rehearsal",
        AWS_DEFAULT_REGION=state["region"],
        AWS_EC2_METADATA_DISABLED="true",
        AWS_CONFIG_FILE="/dev/null",
        AWS_SHARED_CREDENTIALS_FILE="/dev/null",
        RENDERFARM_STATE=str(folder.controller),
        ANSIBLE_INVENTORY=f"inventory,{folder.inventory}",
        NO_PROXY="*",
        PATH=f"{Path(sys.executable).parent}:{base.get('PATH', SYSTEM_PATH)}",
    )
    return values


def place(state: Mapping[str, Any], machine: str | None) -> Path:
    """The network namespace of a machine, or of the controller. RehearsalError when there is no such machine."""
    if machine is None:
        return Path(state["controller_namespace_path"])
    names = {plan.CONTROLLER: plan.CONTROLLER, plan.PC: plan.PC}
    names |= {entry["name"]: entry["namespace"] for entry in state["machines"] if entry["namespace_up"]}
    if machine not in names:
        raise RehearsalError(f"no machine {machine!r} is up; there are: {', '.join(sorted(names))}")
    return Path(f"/proc/{state['daemon_pid']}/root{netns.path(names[machine])}")


def execute(folder: Folder, command: Sequence[str], machine: str | None = None) -> int:
    """Become the command, on the network of the controller or of ``machine``; returns only when it cannot be found."""
    require_root()
    state = folder.read_state()
    values = environment(state, folder, os.environ)
    try:
        netns.enter_for_good(place(state, machine))
    except FileNotFoundError:
        raise control.NotUp(f"the rehearsal in {folder.path} just ended") from None
    try:
        os.execvpe(command[0], list(command), values)
    except FileNotFoundError:
        print(f"rehearsal: {command[0]}: command not found", file=sys.stderr)
        return 127
    except PermissionError:
        print(f"rehearsal: {command[0]}: not executable", file=sys.stderr)
        return 126


# ---------------------------------------------------------------------------------------------------- status


def status(folder: Folder) -> int:
    """Show the machines and what is wrong."""
    answer = control.call(folder.path, {"do": "status"})
    print(describe(answer, time.time()))
    return 0


def describe(answer: Mapping[str, Any], now: float) -> str:
    """What ``status`` prints."""
    rows = []
    for machine in answer["machines"]:
        launched = machine["launch_time"]
        rows.append(
            {
                "machine": machine["name"],
                "instance id": machine["instance_id"] or "-",
                "role": machine["role"] or "-",
                "address": machine["address"] or "-",
                "public": machine["public_address"] or "-",
                "EC2": machine["ec2_state"] or "-",
                "machine is": machine["state"],
                "faults": ", ".join(machine["faults"]) or "-",
                "age": _age(now - launched) if launched else "-",
            }
        )
    lines = [
        f"up since {datetime.fromtimestamp(answer['started']):%H:%M:%S}, "
        f"{answer['endpoint']} ({answer['region']}), daemon {answer['daemon_pid']}",
        "",
        text_table(rows),
        "",
        f"packets with private addresses seen on the internet: {answer['leaks']}",
    ]
    for machine in answer["machines"]:
        if machine["error"]:
            lines.append(f"{machine['name']}: {machine['error']} (log: {machine['log']})")
    if answer["problem"]:
        lines.append(f"the hypervisor cannot go on: {answer['problem']}")
    return "\n".join(lines)


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"


# ---------------------------------------------------------------------------------------------------- inject, down


def inject(folder: Folder, name: str, arguments: Sequence[str]) -> int:
    """Break something."""
    faults.check(name, arguments)
    print(control.call(folder.path, {"do": "inject", "fault": name, "arguments": list(arguments)})["text"])
    return 0


def down(folder: Folder) -> int:
    """End the rehearsal and wait until nothing of it is left; fine when none is up.

    Commands that still run on its controller end too: what was to outlive a playbook there has no cloud any more.
    """
    if not folder.held():
        folder.remove_state()
        print(f"No rehearsal is up in {folder.path}.")
        return 0
    require_root()
    with contextlib.ExitStack() as held:
        _stop(folder, held)
    folder.remove_state()
    print(f"The rehearsal in {folder.path} has ended; logs and disks are still there.")
    return 0


def _stop(folder: Folder, held: contextlib.ExitStack) -> None:
    network = None
    try:
        # Held open: another rehearsal must not get the namespace's number before the commands there have ended.
        network = os.open(place(folder.read_state(), None), os.O_RDONLY | os.O_CLOEXEC)
        held.callback(os.close, network)
        pid = control.daemon_pid(folder.path)
        control.call(folder.path, {"do": "stop"})
    except (control.NotUp, FileNotFoundError):
        pid = None  # it is just starting or ending
    deadline = time.monotonic() + _END_SECONDS
    while folder.held():
        if time.monotonic() > deadline:
            if pid is None:
                raise RehearsalError(f"{folder.path} is held by a rehearsal that does not answer; see {LOG} there")
            os.kill(pid, signal.SIGKILL)
            pid, deadline = None, time.monotonic() + _END_SECONDS
        time.sleep(0.02)
    if network is not None:
        _end_commands(os.fstat(network))


def _end_commands(network: os.stat_result) -> None:
    """End what still runs on the controller, but for the shell that asks, should it be one there."""
    own, asking = os.getpid(), set()
    while own > 1:
        asking.add(own)
        own = int(Path(f"/proc/{own}/stat").read_text().rpartition(")")[2].split()[1])
    for pid in set(netns.inhabitants(network)) - asking:
        with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
            os.kill(pid, signal.SIGTERM)


# ---------------------------------------------------------------------------------------------------- main


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m rehearsal",
        description="A simulated AWS region, studio network and Windows hosts, to run the real playbooks against.",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, text: str, **options: Any) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", **options)
        added.add_argument("--dir", type=Path, default=DEFAULT, help="folder of the rehearsal (default: .rehearsal)")
        return added

    added = command("up", "start a rehearsal")
    added.add_argument(
        "--records", action="store_true", help="render nodes are registered records without a machine, for large farms"
    )
    added = command("exec", "run a command on the studio's controller (put -- before it)")
    added.add_argument(
        "--on", metavar="MACHINE", help="on the network of this machine instead (see: status), or of the PC: pc"
    )
    added.add_argument("argv", nargs="+", metavar="CMD", help="the command and its arguments")
    command("status", "show what stands")
    added = command(
        "inject",
        "break something",
        epilog="faults:\n" + faults.listing(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added.add_argument("fault", metavar="FAULT")
    added.add_argument("arguments", nargs="*", metavar="ARGUMENT")
    command("down", "end the rehearsal")
    added = command("prove", "rehearse a whole farm and check every promise, then end the rehearsal")
    added.add_argument("--nodes", type=int, default=5, help="render nodes (default: 5)")
    added.add_argument("--keep", action="store_true", help="leave the rehearsal with the farm up")
    added = commands.add_parser("serve", description="The daemon itself; 'up' starts it.")
    added.add_argument("--report", type=int, required=True)
    added.add_argument("--records", action="store_true")
    added.add_argument("dir", type=Path)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted.

    A proof that a signal ends exits with 128 and the number of the signal, after it has ended its rehearsal.
    """
    options = parser().parse_args(argv)
    folder = Folder(options.dir)
    try:
        match options.command:
            case "up":
                return up(folder, records=options.records)
            case "exec":
                return execute(folder, options.argv, options.on)
            case "status":
                return status(folder)
            case "inject":
                return inject(folder, options.fault, options.arguments)
            case "down":
                return down(folder)
            case "prove":
                from rehearsal.proof import prove
                from rehearsal.session import end_orderly

                end_orderly(lambda number: sys.exit(128 + number))
                return prove(folder.path, options.nodes, keep=options.keep)
            case "serve":
                from rehearsal.daemon import main as serve

                return serve(folder, options.report, records=options.records)
    except RehearsalError as error:
        print(f"rehearsal: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("rehearsal: interrupted", file=sys.stderr)
        return 130
    raise AssertionError(options.command)
