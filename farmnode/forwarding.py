r"""Forwarding between a machine's networks, as a gateway needs it.

Two places, because each alone is not enough: ``IPEnableRouter`` is read when Windows starts and holds for adapters that
come later; ``netsh interface ipv4 set interface … forwarding=enabled`` works at once, for one adapter, and is kept
(Microsoft Learn, "netsh interface ipv4"; Windows registry, "Tcpip\Parameters").
Nothing is read from words that Windows translates: values and their order only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from farmnode.errors import FarmNodeError
from farmnode.programs import Programs

_PARAMETERS: Final = r"HKLM\SYSTEM\CurrentControlSet\Services\Tcpip\Parameters"
_VALUE: Final = "IPEnableRouter"
_DWORD = re.compile(rf"^\s+{_VALUE}\s+REG_DWORD\s+0x([0-9a-fA-F]+)\s*$", re.MULTILINE)
_ROW = re.compile(r"^[^:\r\n]+?\s+:[ \t]+(\S+)", re.MULTILINE)
_RULE = re.compile(r"^-{20,}\s*$", re.MULTILINE)
_SWITCH: Final = {True: "enabled", False: "disabled"}


@dataclass(frozen=True)
class Plan:
    """What makes forwarding as wanted: whether the registry must change, and the adapters that must (by index)."""

    wanted: bool
    registry: bool = False
    interfaces: tuple[int, ...] = ()

    @property
    def changes(self) -> bool:
        return self.registry or bool(self.interfaces)

    def as_json(self) -> dict[str, Any]:
        return {"enabled": self.wanted, "registry_changed": self.registry, "interfaces_changed": list(self.interfaces)}


def parse_interfaces(text: str) -> dict[int, bool]:
    """Index of each adapter and whether it forwards, from ``netsh interface ipv4 show interfaces level=verbose``.

    Each adapter has a heading, a rule and rows ``label : value``.  First the LUID (``loopback_0`` is left out), second
    the index; the first row that is ``enabled`` or ``disabled`` is the forwarding.
    """
    found: dict[int, bool] = {}
    for block in _RULE.split(text)[1:]:
        values = _ROW.findall(block)
        switches = [value == "enabled" for value in values if value in _SWITCH.values()]
        if len(values) < 3 or not values[1].isdigit() or not switches:
            raise FarmNodeError("program", f"netsh.exe said what is not understood: {' '.join(block.split())[:400]}")
        if not values[0].startswith("loopback_"):
            found[int(values[1])] = switches[0]
    return found


def plan(wanted: bool, router: bool, interfaces: Mapping[int, bool]) -> Plan:
    """What to do so that the machine forwards (or does not) now and after its next start."""
    return Plan(
        wanted,
        registry=router != wanted,
        interfaces=tuple(sorted(index for index, forwards in interfaces.items() if forwards != wanted)),
    )


class Forwarding:
    """The machine's forwarding, through ``reg.exe`` and ``netsh.exe``."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs

    def router(self) -> bool:
        """What Windows reads at its start."""
        done = self._programs.run("reg.exe", ["query", _PARAMETERS, "/v", _VALUE])
        found = _DWORD.search(done.stdout) if done.rc == 0 else None
        return found is not None and int(found[1], 16) == 1

    def interfaces(self) -> dict[int, bool]:
        done = self._programs.check("netsh.exe", ["interface", "ipv4", "show", "interfaces", "level=verbose"])
        return parse_interfaces(done.stdout)

    def apply(self, change: Plan) -> None:
        """Carry out ``change`` and see that it is so."""
        if change.registry:
            value = str(int(change.wanted))
            self._programs.check("reg.exe", ["add", _PARAMETERS, "/v", _VALUE, "/t", "REG_DWORD", "/d", value, "/f"])
        for index in change.interfaces:
            self._programs.check(
                "netsh.exe",
                ["interface", "ipv4", "set", "interface", f"interface={index}", f"forwarding={_SWITCH[change.wanted]}"],
            )
        if change.changes:
            left = plan(change.wanted, self.router(), self.interfaces())
            wrong = sorted(set(left.interfaces) & set(change.interfaces))
            if wrong or left.registry:
                where = ", ".join(
                    [f"interface {index}" for index in wrong] + (["the registry"] if left.registry else [])
                )
                raise FarmNodeError("forwarding", f"forwarding is still not {_SWITCH[change.wanted]} for {where}.")
