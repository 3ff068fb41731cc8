# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Talking to farmnode on a Windows machine of the farm: one command there, one JSON object back.

The interface is for the action plugins of this collection only.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

PYTHON: Final = r"C:\RenderFarm\python\python.exe"
_LONGEST_QUOTE: Final = 500
#: farmnode of this collection.
_PACKAGE: Final = Path(__file__).resolve().parents[2] / "farmnode"
_START: Final = "import sys\nfrom farmnode.cli import main\nsys.exit(main(sys.argv[1:]))\n"


def win_command(words: Sequence[str], stdin: Mapping[str, Any] | Sequence[Any] | None = None) -> dict[str, Any]:
    """The options of ansible.windows.win_command that run ``farmnode`` with ``words``.

    ``stdin`` goes there as ASCII JSON, so that no code page on the way changes it.
    """
    options: dict[str, Any] = {"argv": [PYTHON, "-I", "-m", "farmnode", *words]}
    if stdin is not None:
        options["stdin"] = json.dumps(stdin, ensure_ascii=True)
    return options


def archive() -> bytes:
    """farmnode as one file that ``python3 FILE COMMAND`` runs, for machines where it is not installed."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("__main__.py", _START)
        for path in sorted(_PACKAGE.glob("*.py")):
            file.write(path, f"farmnode/{path.name}")
    return made.getvalue()


def answer(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """What farmnode said, from the result of win_command; with ``failed`` and ``msg`` when there is nothing to use.

    Nothing else of the result is passed on: it repeats the command line and the input.
    """
    if outcome.get("unreachable"):
        return {"unreachable": True, "failed": True, "msg": str(outcome.get("msg", "the machine cannot be reached"))}
    said = _last_object(str(outcome.get("stdout") or ""))
    if said is None:
        return {"failed": True, "reason": "no_answer", "msg": _no_answer(outcome)}
    if said.get("failed") or outcome.get("failed") or outcome.get("rc", 0) != 0:
        return {"failed": True, "reason": said.get("reason", "unexpected"), "msg": said.get("msg", _no_answer(outcome))}
    return said


def _last_object(stdout: str) -> dict[str, Any] | None:
    """The JSON object on the last line that is not blank: Windows may print more before it."""
    lines = [line for line in stdout.splitlines() if line.strip()]
    try:
        said = json.loads(lines[-1]) if lines else None
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _no_answer(outcome: Mapping[str, Any]) -> str:
    quoted = next((text for key in ("stderr", "stdout", "msg") if (text := str(outcome.get(key) or "").strip())), "")
    quoted = quoted[-_LONGEST_QUOTE:] or "no output"
    return (
        f"farmnode gave no answer (exit code {outcome.get('rc', 'unknown')}): {quoted}. "
        f"See that {PYTHON} is there (role node_agent installs it)."
    )


def ansible_diff(said: Mapping[str, Any]) -> list[dict[str, str]]:
    """The changes to backburner.xml, to the routes and to the forwarding in the shape that Ansible shows."""
    diffs = []
    text = said.get("diff") or {"before": "", "after": ""}
    if text["before"] != text["after"]:
        diffs.append(_diff(str(said["path"]), _lines(text["before"]), _lines(text["after"])))
    routes = said["routes"]
    before = _route_lines([*routes["kept"], *routes["removed"]])
    after = _route_lines([*routes["kept"], *routes["added"]])
    if before != after:
        diffs.append(_diff("persistent routes of the farm", before, after))
    null = said.get("null_routes") or {"kept": [], "added": [], "removed": []}
    before = "".join(f"{network}\n" for network in sorted([*null["kept"], *null["removed"]]))
    after = "".join(f"{network}\n" for network in sorted([*null["kept"], *null["added"]]))
    if before != after:
        diffs.append(_diff("null routes of the farm", before, after))
    forwarding = said.get("forwarding")
    if forwarding and (forwarding["registry_changed"] or forwarding["interfaces_changed"]):
        diffs.append(_diff("forwarding", *_forwarding_lines(forwarding)))
    return diffs


def _forwarding_lines(forwarding: Mapping[str, Any]) -> tuple[str, str]:
    places = [f"interface {index}" for index in forwarding["interfaces_changed"]]
    places += ["at the next start"] if forwarding["registry_changed"] else []

    def lines(enabled: bool) -> str:
        return "".join(f"{place}: {'enabled' if enabled else 'disabled'}\n" for place in places)

    return lines(not forwarding["enabled"]), lines(forwarding["enabled"])


def _diff(header: str, before: str, after: str) -> dict[str, str]:
    return {"before_header": header, "after_header": header, "before": before, "after": after}


def _lines(text: str) -> str:
    """With the line ends that a terminal shows; the file keeps its own."""
    return text.replace("\r\n", "\n")


def _route_lines(routes: Sequence[Mapping[str, Any]]) -> str:
    return "".join(sorted(f"{route['network']} via {route['gateway']} metric {route['metric']}\n" for route in routes))


def normal_mac(text: str) -> str:
    """``text`` in any notation as ``aa:bb:cc:dd:ee:ff``. ValueError when it is no MAC address."""
    digits = text.replace(":", "").replace("-", "").lower()
    if len(digits) != 12 or set(digits) - set("0123456789abcdef"):
        raise ValueError(f"{text!r} is no MAC address")
    return ":".join(digits[index : index + 2] for index in range(0, 12, 2))


def registered(servers: Sequence[Mapping[str, Any]]) -> list[str]:
    """The MAC addresses of the servers that the manager does not call absent."""
    return [str(server["mac"]) for server in servers if server["state"] != "absent"]
