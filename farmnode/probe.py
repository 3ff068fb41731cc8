r"""What this machine sees of the others: echo requests, TCP ports, names, transfers, its clock and its own end.

``farmnode probe`` reads a list of probes as JSON and answers with one result each, in the same order.  Nothing is
changed, but for a firewall rule that lets the others in while ``listen`` waits for them.  Probes run side by side.

=========== ============================================================ =============================================
kind        keys (default)                                               result, besides ``ok``
=========== ============================================================ =============================================
ping        address, count (3), size (32), df (false), ttl, wait (2)     sent received ms complaints too_large mtu
tcp         address, port, wait (3)                                      ms, or error: refused, silent, unreachable
name        name, expect                                                 addresses
clock                                                                    now: seconds since 1970, UTC
routes                                                                   routes: [{network, gateway}]
openvpn                                                                  service, logs: {name: last 16 KiB}
forwarding                                                               enabled, or null when it cannot be told
listen      transfers, seconds (60), port (3235), networks               served
send        address, bytes, port (3235), patience (30)                   bytes seconds mbit sha256
receive     as send                                                      as send
=========== ============================================================ =============================================

It runs on Windows through Windows' own programs; with ``--system linux`` also on a controller or a workstation with
Linux, through ``ping`` and ``ip``.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Final, Protocol

from farmnode import paths, ping, transfer
from farmnode.clock import Clock
from farmnode.errors import FarmNodeError
from farmnode.forwarding import Forwarding
from farmnode.programs import Programs
from farmnode.routes import RouteTable
from farmnode.services import Services

_AT_ONCE: Final = 24
_LOG_TAIL: Final = 16 * 1024
_OPENVPN_KEY: Final = r"HKLM\SOFTWARE\OpenVPN"
_OPENVPN_SERVICE: Final = "OpenVPNService"
_RULE: Final = "renderfarm-link-check"
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?")


class System(Protocol):
    """What probes need of the operating system."""

    def ping(self, address: str, *, count: int, size: int, df: bool, ttl: int | None, wait: float) -> ping.Echo: ...
    def routes(self) -> list[tuple[IPv4Network, IPv4Address]]: ...
    def forwarding(self) -> bool | None: ...
    def openvpn(self) -> dict[str, Any]: ...
    def let_in(self, port: int, networks: Sequence[str]) -> None: ...
    def shut_out(self) -> None: ...


class Windows:
    """Windows, through its own programs."""

    def __init__(self, programs: Programs, clock: Clock) -> None:
        self._programs = programs
        self._services = Services(programs, clock)
        self._table = RouteTable(programs)
        self._forwarding = Forwarding(programs)

    def ping(self, address: str, *, count: int, size: int, df: bool, ttl: int | None, wait: float) -> ping.Echo:
        return ping.windows(self._programs, address, count=count, size=size, df=df, ttl=ttl, wait=wait)

    def routes(self) -> list[tuple[IPv4Network, IPv4Address]]:
        return sorted(self._table.active().routes)

    def forwarding(self) -> bool | None:
        """Whether every adapter forwards now, whatever the registry says about the next start."""
        return all(self._forwarding.interfaces().values())

    def openvpn(self) -> dict[str, Any]:
        done = self._programs.run("reg.exe", ["query", _OPENVPN_KEY, "/v", "log_dir"])
        found = re.search(r"log_dir\s+REG_\w+\s+(\S.*?)\s*$", done.stdout, re.MULTILINE)
        if found is None:
            return {"ok": False, "service": "missing", "logs": {}, "error": "OpenVPN is not installed"}
        service = self._services.describe(_OPENVPN_SERVICE)
        return {"ok": service == "running", "service": service, "logs": _tails(paths.real(found[1]))}

    def let_in(self, port: int, networks: Sequence[str]) -> None:
        self.shut_out()  # a run that was cut short may have left it
        words = ["advfirewall", "firewall", "add", "rule", f"name={_RULE}", "dir=in", "action=allow", "protocol=TCP"]
        words += [f"localport={port}", f"remoteip={','.join(networks)}", "profile=any"]
        self._programs.check("netsh.exe", words)

    def shut_out(self) -> None:
        # Its exit code is 1 when there is no such rule.
        self._programs.run("netsh.exe", ["advfirewall", "firewall", "delete", "rule", f"name={_RULE}"])


class Linux:
    """A controller or a workstation with Linux."""

    def ping(self, address: str, *, count: int, size: int, df: bool, ttl: int | None, wait: float) -> ping.Echo:
        return ping.linux(address, count=count, size=size, df=df, ttl=ttl, wait=wait)

    def routes(self) -> list[tuple[IPv4Network, IPv4Address]]:
        found = json.loads(_said(["ip", "-j", "-4", "route", "show"]) or "[]")
        return sorted(
            (IPv4Network("0.0.0.0/0" if route["dst"] == "default" else route["dst"]), IPv4Address(route["gateway"]))
            for route in found
            if "gateway" in route
        )

    def forwarding(self) -> bool | None:
        try:
            return Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"
        except OSError:
            return None

    def openvpn(self) -> dict[str, Any]:
        units = _said(["systemctl", "list-units", "--plain", "--no-legend", "--state=active", "openvpn*"])
        log = _said(["journalctl", "--no-pager", "--output=cat", "--lines=200", "--unit=openvpn*"])
        logs = {**_tails(Path("/var/log/openvpn")), **({"journal": log[-_LOG_TAIL:]} if log.strip() else {})}
        running = bool(units.strip())
        return {"ok": running, "service": "running" if running else "stopped", "logs": logs}

    def let_in(self, port: int, networks: Sequence[str]) -> None:
        """Nothing: which firewall a Linux machine has, if any, is its owner's affair."""

    def shut_out(self) -> None: ...


def _said(command: Sequence[str]) -> str:
    """What a program prints; nothing when it is not there."""
    program = shutil.which(command[0], path="/usr/sbin:/usr/bin:/sbin:/bin")
    if program is None:
        return ""
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=30, check=False)
    return done.stdout


def _tails(folder: Path) -> dict[str, str]:
    """The ends of the logs in ``folder`` by name, without what cannot be read."""
    tails: dict[str, str] = {}
    for path in sorted(folder.glob("*.log")) if folder.is_dir() else []:
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - _LOG_TAIL))
                tails[path.stem] = file.read(_LOG_TAIL).decode("utf-8", "replace").replace("\r\n", "\n")
        except OSError as error:
            tails[path.stem] = f"(cannot be read: {error.strerror or error})"
    return tails


@dataclass(frozen=True)
class _Kind:
    """``required`` and ``optional`` keys with what checks each; ``run`` makes the result."""

    required: Mapping[str, Callable[[Any], bool]]
    optional: Mapping[str, Callable[[Any], bool]]
    run: Callable[[Prober, Mapping[str, Any]], dict[str, Any]]


class Prober:
    """Runs probes on this machine."""

    def __init__(self, system: System, clock: Clock) -> None:
        self._system = system
        self._clock = clock

    def run(self, data: Any) -> list[dict[str, Any]]:
        """One result for each probe of the list ``data``, in its order.

        FarmNodeError when the list is not understood; what fails is a result with ``ok`` false and ``error``.
        """
        probes = [_checked(probe, f"probe {number}") for number, probe in enumerate(_a_list(data), 1)]
        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            return list(pool.map(self._one, probes))

    def _one(self, probe: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return _KINDS[probe["kind"]].run(self, probe)
        except (FarmNodeError, transfer.TransferError) as error:
            return {"ok": False, "error": str(error)}

    def ping(self, probe: Mapping[str, Any]) -> dict[str, Any]:
        echo = self._system.ping(
            probe["address"],
            count=probe.get("count", 3),
            size=probe.get("size", 32),
            df=probe.get("df", False),
            ttl=probe.get("ttl"),
            wait=probe.get("wait", 2),
        )
        return echo.as_json()

    def tcp(self, probe: Mapping[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        try:
            socket.create_connection((probe["address"], probe["port"]), timeout=probe.get("wait", 3)).close()
        except ConnectionRefusedError:
            return {"ok": False, "error": "refused"}
        except TimeoutError:
            return {"ok": False, "error": "silent"}
        except OSError as error:
            return {"ok": False, "error": "unreachable", "said": error.strerror or str(error)}
        return {"ok": True, "ms": round((time.perf_counter() - began) * 1000, 2)}

    def name(self, probe: Mapping[str, Any]) -> dict[str, Any]:
        try:
            found = socket.getaddrinfo(probe["name"], None, socket.AF_INET, socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return {"ok": False, "addresses": [], "error": "it does not resolve"}
        addresses = sorted({str(entry[4][0]) for entry in found})
        return {"ok": addresses == [probe["expect"]], "addresses": addresses}

    def now(self, probe: Mapping[str, Any]) -> dict[str, Any]:
        return {"ok": True, "now": self._clock.now()}

    def routes(self, probe: Mapping[str, Any]) -> dict[str, Any]:
        routes = [{"network": str(network), "gateway": str(gateway)} for network, gateway in self._system.routes()]
        return {"ok": True, "routes": routes}

    def openvpn(self, probe: Mapping[str, Any]) -> dict[str, Any]:
        return self._system.openvpn()

    def forwarding(self, probe: Mapping[str, Any]) -> dict[str, Any]:
        enabled = self._system.forwarding()
        return {"ok": enabled is not False, "enabled": enabled}

    def listen(self, probe: Mapping[str, Any]) -> dict[str, Any]:
        port = probe.get("port", transfer.PORT)
        self._system.let_in(port, probe["networks"])
        try:
            served = transfer.listen(probe["transfers"], port=port, limit=probe.get("seconds", 60))
        except OSError as error:
            return {"ok": False, "served": [], "error": f"cannot listen on port {port}: {error.strerror or error}"}
        finally:
            self._system.shut_out()
        return {"ok": sum(each["ok"] for each in served) == probe["transfers"], "served": served}

    def exchange(self, probe: Mapping[str, Any]) -> dict[str, Any]:
        port, patience = probe.get("port", transfer.PORT), probe.get("patience", 30)
        return transfer.client(probe["address"], port, probe["kind"], probe["bytes"], patience=patience).as_json()


def _a_list(data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise FarmNodeError("bad_desired_state", f"probes are a list, not {type(data).__name__}.")
    return data


def _checked(probe: Any, where: str) -> dict[str, Any]:
    kind = _KINDS.get(probe.get("kind", "")) if isinstance(probe, dict) else None
    if kind is None:
        raise FarmNodeError(
            "bad_desired_state", f"{where} is {probe!r}: a probe has a kind of {', '.join(sorted(_KINDS))}."
        )
    checks = {**kind.required, **kind.optional}
    missing = sorted(set(kind.required) - set(probe))
    unknown = sorted(set(probe) - set(checks) - {"kind"})
    if missing or unknown:
        raise FarmNodeError(
            "bad_desired_state",
            f"{where} ({probe['kind']}): missing {', '.join(missing) or 'nothing'}, "
            f"unknown {', '.join(unknown) or 'nothing'}.",
        )
    for key, sound in checks.items():
        if key in probe and not sound(probe[key]):
            raise FarmNodeError("bad_desired_state", f"{where} ({probe['kind']}): {key} cannot be {probe[key]!r}.")
    return dict(probe)


def _address(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(IPv4Address(value))
    except ValueError:
        return False


def _networks(value: Any) -> bool:
    try:
        return (
            isinstance(value, list) and bool(value) and all(isinstance(one, str) and IPv4Network(one) for one in value)
        )
    except ValueError:
        return False


def _host(value: Any) -> bool:
    return isinstance(value, str) and _HOST.fullmatch(value) is not None


def _truth(value: Any) -> bool:
    return isinstance(value, bool)


def _from(least: float, most: float, kind: type = int) -> Callable[[Any], bool]:
    kinds = (int, float) if kind is float else (int,)
    return lambda value: not isinstance(value, bool) and isinstance(value, kinds) and least <= value <= most


_PORT: Final = _from(1, 65535)
_EXCHANGE: Final = _Kind(
    {"address": _address, "bytes": _from(1, transfer.LARGEST)},
    {"port": _PORT, "patience": _from(1, 600, float)},
    Prober.exchange,
)
_KINDS: Final[dict[str, _Kind]] = {
    "ping": _Kind(
        {"address": _address},
        {
            "count": _from(1, 100),
            "size": _from(0, 65500),
            "df": _truth,
            "ttl": _from(1, 255),
            "wait": _from(0.1, 60, float),
        },
        Prober.ping,
    ),
    "tcp": _Kind({"address": _address, "port": _PORT}, {"wait": _from(0.1, 60, float)}, Prober.tcp),
    "name": _Kind({"name": _host, "expect": _address}, {}, Prober.name),
    "clock": _Kind({}, {}, Prober.now),
    "routes": _Kind({}, {}, Prober.routes),
    "openvpn": _Kind({}, {}, Prober.openvpn),
    "forwarding": _Kind({}, {}, Prober.forwarding),
    "listen": _Kind(
        {"transfers": _from(1, 1000), "networks": _networks},
        {"port": _PORT, "seconds": _from(1, 3600, float)},
        Prober.listen,
    ),
    "send": _EXCHANGE,
    "receive": _EXCHANGE,
}
