# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from ansible.errors import AnsibleActionFail

from ..module_utils.aws_errors import explain
from ..plugin_utils import bake_guard
from ..plugin_utils.aws_action import Ec2Action


class ActionModule(Ec2Action):
    """Runs on the controller, in a process of ansible-playbook's own: its parent is what the guard waits for."""

    OPTIONS: ClassVar[Mapping[str, Any]] = {
        "bake": {"type": "str", "required": True},
        "farm": {"type": "str", "required": True},
        "region": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["started", "ended", "swept"], "required": True},
        "state_dir": {"type": "path", "required": True},
        "keep_builder": {"type": "bool", "default": False},
        "hours": {"type": "int", "default": 6},
    }

    def doing(self, options: Mapping[str, Any]) -> str:
        return f"guard the bake {options['bake']}"

    def act(self, ec2: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        do = {"started": self._start, "ended": self._end, "swept": self._sweep}[options["state"]]
        try:
            return do(ec2, Path(options["state_dir"]), options)
        except bake_guard.Unended as error:
            raise AnsibleActionFail(_left(error, options)) from error

    def _start(self, ec2: Any, state: Path, options: Mapping[str, Any]) -> dict[str, Any]:
        """End what earlier bakes left, adopt a builder to go on with, start the guard."""
        own = self._earlier(state, options)
        alive = [record for record in own if record.alive()]
        if alive:
            raise AnsibleActionFail(
                f"Process {alive[0].pid} on this controller bakes {alive[0].bake} of the farm {alive[0].farm}. "
                "Remedy: wait until it ends, or end it with Ctrl-C."
            )
        ended = self._end_images(ec2, own)
        adopted: dict[str, str] = {}
        bakes = {record.bake for record in own}
        for builder in self._builders(ec2, options["farm"]):
            adoptable = not adopted and builder["State"]["Name"] in bake_guard.GOES_ON
            if bake_guard.tag(builder, bake_guard.TAG_BAKE) in bakes and options["keep_builder"] and adoptable:
                adopted = {"name": bake_guard.tag(builder, "Name"), "instance_id": builder["InstanceId"]}
            elif bake_guard.tag(builder, bake_guard.TAG_BAKE) in bakes or _too_old(builder, options["hours"]):
                ended.append(_terminate(ec2, builder))
            else:
                raise AnsibleActionFail(_foreign(builder, options["region"]))
        bake_guard.start(bake_guard.own_record(options["bake"], options, os.getppid()), state)
        if adopted:
            new = [{"Key": bake_guard.TAG_BAKE, "Value": options["bake"]}]
            ec2.create_tags(Resources=[adopted["instance_id"]], Tags=new)
        for bake in bakes:
            bake_guard.forget(state, bake)
        return {"changed": bool(ended), "ended": ended, "adopted": adopted}

    def _sweep(self, ec2: Any, state: Path, options: Mapping[str, Any]) -> dict[str, Any]:
        """End what earlier bakes left, but nothing of a bake that is under way, here or elsewhere."""
        own = [record for record in self._earlier(state, options) if not record.alive()]
        ended = self._end_images(ec2, own)
        bakes = {record.bake for record in own}
        ended += [
            _terminate(ec2, builder)
            for builder in self._builders(ec2, options["farm"])
            if bake_guard.tag(builder, bake_guard.TAG_BAKE) in bakes or _too_old(builder, options["hours"])
        ]
        for bake in bakes:
            bake_guard.forget(state, bake)
        return {"changed": bool(ended), "ended": ended}

    @staticmethod
    def _earlier(state: Path, options: Mapping[str, Any]) -> list[bake_guard.Record]:
        place = (options["farm"], options["region"])
        return [record for record in bake_guard.records(state) if (record.farm, record.region) == place]

    @staticmethod
    def _end_images(ec2: Any, records: list[bake_guard.Record]) -> list[str]:
        return [what for record in records for what in bake_guard.clean(ec2, record.bake, keep_builder=True)]

    @staticmethod
    def _builders(ec2: Any, farm: str) -> list[dict[str, Any]]:
        return bake_guard.instances(
            ec2,
            [
                {"Name": f"tag:{bake_guard.TAG_FARM}", "Values": [farm]},
                {"Name": f"tag:{bake_guard.TAG_ROLE}", "Values": ["builder"]},
            ],
        )

    @staticmethod
    def _end(ec2: Any, state: Path, options: Mapping[str, Any]) -> dict[str, Any]:
        """The bake ends by itself, well or not. The record of a builder that is kept stays: a later bake ends it."""
        records = [record for record in bake_guard.records(state) if record.bake == options["bake"]]
        for record in records:  # before: what cannot be ended now is ended by the guard, which reads this
            bake_guard.write(replace(record, keep_builder=options["keep_builder"]), state)
        ended = bake_guard.clean(ec2, options["bake"], keep_builder=options["keep_builder"])
        if not options["keep_builder"]:
            bake_guard.forget(state, options["bake"])
            return {"changed": bool(ended), "ended": ended, "kept": []}
        by_bake = [{"Name": f"tag:{bake_guard.TAG_BAKE}", "Values": [options["bake"]]}]
        alive = bake_guard.instances(ec2, by_bake)
        kept = [builder["InstanceId"] for builder in alive if builder["State"]["Name"] in bake_guard.GOES_ON]
        for record in records:
            bake_guard.write(replace(record, keep_builder=True, ended=True), state)
        return {"changed": bool(ended), "ended": ended, "kept": kept}


def _terminate(ec2: Any, builder: dict[str, Any]) -> str:
    ec2.terminate_instances(InstanceIds=[builder["InstanceId"]])
    return f"builder {builder['InstanceId']}"


def _left(error: bake_guard.Unended, options: Mapping[str, Any]) -> str:
    """What may still be there, why, and how it goes."""
    reasons = " ".join(explain(cause, doing=doing) for doing, cause in error.problems)
    look = f"--region {options['region']} --filters Name=tag:{bake_guard.TAG_BAKE},Values={error.bake}"
    guard = f"this controller for an hour (log: {options['state_dir']}/bakes), and by "
    return (
        f"What the bake {error.bake} made may still be there and cost. {reasons} It is tried again by "
        f"{guard if options['state'] == 'ended' else ''}the next bake-ami.yml; a builder ends itself "
        f"{options['hours']} hours after its launch. See what there is: aws ec2 describe-instances {look} (as well "
        "describe-images and describe-snapshots). End a builder: aws ec2 terminate-instances --instance-ids ID."
    )


def _too_old(builder: dict[str, Any], hours: int) -> bool:
    """It should have ended itself."""
    return bool(builder["LaunchTime"] < datetime.now(UTC) - timedelta(hours=hours))


def _foreign(builder: dict[str, Any], region: str) -> str:
    name, bake = builder["InstanceId"], bake_guard.tag(builder, bake_guard.TAG_BAKE) or "an image"
    return (
        f"Another controller bakes {bake}: its builder {name} was launched {builder['LaunchTime']:%Y-%m-%d %H:%M} UTC. "
        f"Remedy: wait, or end it: aws ec2 terminate-instances --region {region} --instance-ids {name}"
    )
