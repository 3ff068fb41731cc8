"""What ``playbooks/link-check.yml`` says of a tunnel: its own questions and verdict, asked between the namespaces.

Each end answers the check's questions as its machine would (``farmnode probe``): pings are sent, OpenVPN's log is the
real one. What the namespaces cannot tell (names, routes of Windows, EC2) and transfers are not asked here.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ansible_collections.renderfarm.cloud.plugins.module_utils.vpn_certificates import read_pki
from ansible_collections.renderfarm.cloud.plugins.plugin_utils import link, link_facts, link_verdict, openvpn_log

from tests.tunnel import network as plan
from tests.tunnel.openvpn import End, Tunnel
from tests.tunnel.traffic import hop, ping

_ASKED = {"clock", "OpenVPN", "second hop", "ping", "path MTU"}


def rows(tunnel: Tunnel, *, pki: Path | None = None) -> list[dict[str, Any]]:
    """The check's table for the two ends of the tunnel between studio and cloud. ``pki``: the controller's folder."""
    settings = link.settings_from(
        {
            "server_side": tunnel.link.settings["farm_vpn_server_side"],
            "endpoint": tunnel.link.endpoint,
            "port": plan.PORT,
            "lan_network": plan.LAN,
            "cloud_network": plan.CLOUD,
            "tunnel_network": plan.TUNNEL,
            "remote_network": plan.REMOTE,
            "points": [
                {"name": name, "kind": name, "host": name, "addresses": [plan.ADDRESSES[name]]}
                for name in ("workstation", "manager")
            ],
            "ports": {},
            "megabytes": 0,
        }
    )
    ends = {tunnel.link.server: tunnel.server, tunnel.link.client: tunnel.client}
    questions = {
        host: [question for question in asked if question.check in _ASKED]
        for host, asked in link.first_round(settings).items()
    }
    said = {
        host: {"asked_at": time.time(), "results": [_answer(tunnel, ends[host], question) for question in asked]}
        for host, asked in questions.items()
    }
    first = link.Answers(questions, said)
    state = read_pki(pki, wanted=None, renew=[], renew_days=0).as_dict() if pki else None
    table = link_verdict.verdict(settings, first, link.Answers({}, {}), link_facts.Cloud(), state, openvpn_log.explain)
    return [row for row in table if row["check"] != "transfer"]


def causes(tunnel: Tunnel, *, pki: Path | None = None) -> list[str]:
    """The causes that the check names, the gravest first; each has a remedy."""
    problems = link_verdict.problems(rows(tunnel, pki=pki))
    assert all(problem["remedy"] for problem in problems), problems
    return [problem["cause"] for problem in problems]


def _answer(tunnel: Tunnel, end: End, question: link.Question) -> dict[str, Any]:
    probe = question.probe
    match probe["kind"]:
        case "clock":
            return {"ok": True, "now": time.time()}
        case "openvpn":
            return {"ok": True, "service": "running", "logs": {end.log_file.name: end.log()}}
    if "ttl" in probe:
        router = hop(end.machine, probe["address"], probe["ttl"])
        complaints = [{"from": router, "text": "TTL expired in transit."}] if router else []
        return {"ok": False, "sent": 1, "received": 0, "complaints": complaints}
    answer = ping(
        end.machine, probe["address"], size=probe.get("size", 32), dont_fragment=probe.get("df", False), timeout=0.5
    )
    replied = answer.kind == "reply"
    return {
        "ok": replied, "sent": 1, "received": int(replied), "ms": round(answer.seconds * 1000, 1),
        "too_large": answer.kind == "too big",
    }  # fmt: skip
