# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ..plugin_utils import link, link_facts, link_router, link_verdict, openvpn_log

Said = Mapping[str, Mapping[str, Any]]


def link_questions(settings: Mapping[str, Any], first: Said | None = None) -> dict[str, list[dict[str, Any]]]:
    """The probes of the first round; with its answers, those of the second round: the transfers."""
    parsed = _settings(settings)
    plan = link.first_round(parsed)
    return link.as_plan(plan if first is None else link.second_round(parsed, link.Answers(plan, first)))


def link_verdict_(
    settings: Mapping[str, Any], first: Said, second: Said, facts: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The rows of the table."""
    parsed = _settings(settings)
    plan = link.first_round(parsed)
    answers = link.Answers(plan, first)
    transfers = link.Answers(link.second_round(parsed, answers), second)
    cloud = link_facts.Cloud()
    if "interfaces" in facts:
        cloud = link_facts.cloud_from(facts["interfaces"], facts["route_tables"], facts["groups"])
    return link_verdict.verdict(parsed, answers, transfers, cloud, facts.get("pki"), openvpn_log.explain)


def link_router_lines(settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """What must be set by hand in the studio."""
    return link_router.router_lines(_settings(settings))


def link_points(
    groups: Mapping[str, Any],
    hosts: Mapping[str, Any],
    controller: Sequence[str],
    manager_address: str,
    samples: int,
    pcs: Mapping[str, str],
) -> list[dict[str, Any]]:
    """The machines at the link's ends."""
    try:
        return link.points(
            hosts, groups, controller=controller, manager_address=manager_address, samples=int(samples), pcs=pcs
        )
    except KeyError as error:
        raise AnsibleFilterError(f"link_points: a host lacks {error}; is it from renderfarm.cloud.ec2_farm?") from error


def _settings(data: Mapping[str, Any]) -> link.Settings:
    try:
        return link.settings_from(data)
    except KeyError as error:
        raise AnsibleFilterError(f"the settings of the link lack {error}") from error
    except ValueError as error:
        raise AnsibleFilterError(f"the settings of the link: {error}") from error


class FilterModule:
    """Filters of the role link_check."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "link_points": link_points,
            "link_problems": link_verdict.problems,
            "link_questions": link_questions,
            "link_verdict": link_verdict_,
            "link_router_lines": link_router_lines,
        }
