"""tapctl.exe of OpenVPN (reference: openvpn/src/tapctl, main.c): ``list`` and ``create`` of TAP adapters."""

from __future__ import annotations

import uuid

from rehearsal.interfaces import Outcome
from rehearsal.windows import network
from rehearsal.windows.programs.base import Invocation, console, refuse

_HARDWARE = "root\\tap0901"


async def main(invocation: Invocation) -> Outcome:
    """``list --hwid root\\tap0901``, ``create --hwid root\\tap0901 --name NAME``: a line with GUID and name of each."""
    host, words = invocation.host, invocation.arguments
    options = dict(zip(words[1::2], words[2::2], strict=False))
    if len(words) % 2 == 0 or options.get("--hwid") != _HARDWARE or set(options) - {"--hwid", "--name"}:
        return refuse(invocation, f"only --hwid {_HARDWARE} and --name are modelled")
    known = network.tap_adapters(host)
    if words[:1] == ["list"] and "--name" not in options:
        return console("".join(f"{_guid(name)}\t{name}\n" for name in known))
    name = options.get("--name", "")
    if words[:1] == ["create"] and name and name not in known:
        host.registry.set(network.FURTHER_ADAPTERS, name, "REG_SZ", "")
        return console(f"{_guid(name)}\n")
    return refuse(invocation)


def _guid(name: str) -> str:
    return "{" + str(uuid.uuid5(uuid.NAMESPACE_DNS, name)).upper() + "}"
