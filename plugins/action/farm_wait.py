# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ..module_utils import machines
from ..module_utils.aws_errors import explain
from ..plugin_utils import farm_wait, farmnode

try:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError as missing:
    BOTO_MISSING: ImportError | None = missing
else:
    BOTO_MISSING = None

#: Seconds for which farmnode on the manager waits for the nodes before it answers in any case.
_TURN = 4.0
#: Seconds between two starts of it at least.
_LEAST_PAUSE = 2.0
#: Seconds between two looks at the consoles of nodes, and how many are read then.
_CONSOLES_EVERY, _CONSOLES = 15.0, 10
#: At the end all are read, so many at a time, which together take so many seconds at least: EC2 allows 20 calls of
#: GetConsoleOutput a second, and 100 at once (EC2 Developer Guide, "Request throttling for the Amazon EC2 API",
#: non-mutating actions). After the third number of seconds no further ones are read; it is enough for 1,200 nodes.
_BATCH, _BATCH_SECONDS, _CONSOLES_AT_LAST = 40, 2.0, 60.0

display = Display()


class ActionModule(ActionBase):  # type: ignore[misc]
    """Waits on the controller; asks the manager over its connection, and EC2 only when that takes long."""

    _supports_check_mode = True
    _supports_async = False
    _clock: Callable[[], float] = staticmethod(time.monotonic)
    _sleep: Callable[[float], None] = staticmethod(time.sleep)

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        _, options = self.validate_argument_spec(
            {
                "nodes": {
                    "type": "list",
                    "elements": "dict",
                    "required": True,
                    "options": {name: {"type": "str", "required": True} for name in ("name", "mac", "instance")},
                },
                "wanted": {"type": "int"},
                "settle": {"type": "bool", "default": False},
                "timeout": {"type": "int", "default": 900},
                "region": {"type": "str", "required": True},
                "profile": {"type": "str"},
            }
        )
        try:
            nodes = farm_wait.nodes(options["nodes"])
        except ValueError as error:
            raise AnsibleActionFail(f"nodes: {error}.") from error
        wanted = len(nodes) if options["wanted"] is None else options["wanted"]
        if not 0 <= wanted <= len(nodes):
            raise AnsibleActionFail(f"wanted is {wanted}, but there are {len(nodes)} nodes.")
        cloud = Cloud(options["region"], options["profile"])
        wait = Wait(
            nodes,
            wanted,
            lambda seconds: self._servers(nodes, seconds, task_vars),
            cloud,
            self._clock,
            self._sleep,
            settle=options["settle"],
        )
        try:
            return result | {"changed": False} | wait.run(options["timeout"])
        except CloudError as error:
            raise AnsibleActionFail(str(error)) from error

    def _servers(
        self, nodes: Sequence[farm_wait.Node], seconds: float, task_vars: dict[str, Any] | None
    ) -> dict[str, Any]:
        check = self._task.check_mode
        # win_command does nothing in check mode; asking changes nothing.
        self._task.check_mode = False
        try:
            outcome: dict[str, Any] = self._execute_module(
                module_name="ansible.windows.win_command",
                module_args=farmnode.win_command(
                    ["servers", "--jobs", "--wait", str(seconds)], [node.mac for node in nodes]
                ),
                task_vars=task_vars,
            )
            return farmnode.answer(outcome)
        finally:
            self._task.check_mode = check


class Wait:
    """The loop. ``ask`` has the manager say its servers as soon as all are there, or after some seconds.

    It ends with ``wanted`` registered nodes; with ``settle`` not before each node is registered or has failed, too.
    """

    def __init__(
        self,
        nodes: Sequence[farm_wait.Node],
        wanted: int,
        ask: Callable[[float], dict[str, Any]],
        cloud: Cloud,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        *,
        settle: bool = False,
    ) -> None:
        self._nodes, self._wanted, self._ask, self._cloud = nodes, wanted, ask, cloud
        self._settle = settle
        self._clock, self._sleep = clock, sleep
        self._states: dict[str, tuple[str, str]] = {}
        self._events: dict[str, dict[str, Any]] = {}
        self._read: set[str] = set()
        self._servers: list[dict[str, Any]] = []
        self._jobs: list[dict[str, Any]] = []
        self._consoles_at = clock() + _CONSOLES_EVERY
        self._shown = ""

    def run(self, timeout: float) -> dict[str, Any]:
        """What the task returns. `CloudError` when EC2 cannot be asked."""
        end = self._clock() + timeout
        while True:
            begun = self._clock()
            said = self._ask(max(0.0, min(_TURN, end - begun)))
            self._servers = said.get("servers", self._servers)
            self._jobs = said.get("jobs", self._jobs)
            statuses = self._judge()
            if self._count(statuses) < (len(self._nodes) if self._settle else self._wanted):
                self._states = self._cloud.states(self._nodes)
                self._read_consoles(statuses)
                statuses = self._judge()
            # An answer that failed proves nothing: there may be no manager behind the list that it gave before.
            enough = self._count(statuses) >= self._wanted and not said.get("failed")
            if enough and not (self._settle and farm_wait.booting(statuses)):
                return self._enough("no other can become ready")
            self._show(statuses, str(said.get("msg", "")) if said.get("failed") else "")
            if not farm_wait.possible(statuses, self._wanted):
                return self._failure("more cannot become ready", said)
            if self._clock() >= end:
                why = f"{timeout:g} seconds have passed"
                return self._enough(why) if enough else self._failure(why, said)
            self._sleep(max(0.0, min(_LEAST_PAUSE - (self._clock() - begun), end - self._clock())))

    def _judge(self) -> list[farm_wait.Status]:
        return farm_wait.judge(self._nodes, self._servers, self._states, self._events, self._read)

    @staticmethod
    def _count(statuses: Sequence[farm_wait.Status]) -> int:
        return sum(status.stand is farm_wait.Stand.REGISTERED for status in statuses)

    def _read_consoles(self, statuses: Sequence[farm_wait.Status]) -> None:
        """Read the consoles of those that ended and have not told why, and from time to time of those that boot."""
        ended = [
            node.instance
            for node in self._nodes
            if self._states.get(node.instance, ("pending", ""))[0] not in ("pending", "running")
            and self._events.get(node.instance, {}).get("event") != "failed"
        ]
        asked = ended[:_CONSOLES]
        if self._clock() >= self._consoles_at:
            self._consoles_at = self._clock() + _CONSOLES_EVERY
            asked = farm_wait.worth_asking(statuses, self._states)[:_CONSOLES]
        self._ask_consoles(asked)

    def _ask_consoles(self, instances: Sequence[str]) -> None:
        self._events |= self._cloud.events(instances)
        self._read.update(instances)

    def _show(self, statuses: Sequence[farm_wait.Status], problem: str) -> None:
        text = farm_wait.line(statuses) + (f"; the manager does not answer: {problem}" if problem else "")
        if text != self._shown:
            self._shown = text
            display.display(text)

    def _result(self, statuses: Sequence[farm_wait.Status]) -> dict[str, Any]:
        return {
            "servers": self._servers,
            "jobs": self._jobs,
            "registered": self._count(statuses),
            "nodes": [asdict(each.node) | {"state": str(each.stand), "reason": each.reason} for each in statuses],
        }

    def _enough(self, why: str) -> dict[str, Any]:
        """The result of a good end; what waited for all nodes says why some are missing."""
        statuses = self._judge()
        if not self._settle or self._count(statuses) == len(self._nodes):
            return self._result(statuses)
        statuses = self._ask_missing()
        return self._result(statuses) | {"msg": farm_wait.complaint(statuses, self._wanted, why)}

    def _ask_missing(self) -> list[farm_wait.Status]:
        """How the nodes stand after the consoles of all that are missing were read, as far as there is time for it."""
        asked = farm_wait.worth_asking(self._judge(), self._states)
        end = self._clock() + _CONSOLES_AT_LAST
        while asked and self._clock() < end:
            begun = self._clock()
            self._ask_consoles(asked[:_BATCH])
            asked = asked[_BATCH:]
            if asked:
                self._sleep(max(0.0, begun + _BATCH_SECONDS - self._clock()))
        return self._judge()

    def _failure(self, why: str, said: Mapping[str, Any]) -> dict[str, Any]:
        """The result of a bad end. When the manager is silent nobody knows how the nodes stand: they are left out, so
        that none is ended for what the manager does."""
        statuses = self._ask_missing()
        found = self._result(statuses)
        if said.get("failed"):
            why += f"; the manager does not answer: {str(said.get('msg', '')).rstrip('.')}"
            del found["nodes"], found["registered"]
        return found | {"failed": True, "msg": farm_wait.complaint(statuses, self._wanted, why)}


class CloudError(Exception):
    """EC2 cannot be asked; the text is for the user."""


class Cloud:
    """EC2 as far as it is needed here. The client is made when it is asked first: most waits never need it."""

    def __init__(self, region: str, profile: str | None) -> None:
        self._region, self._profile = region, profile
        self._client: Any = None

    def states(self, nodes: Sequence[farm_wait.Node]) -> dict[str, tuple[str, str]]:
        """State and reason of each node's instance; one that EC2 does not know is left out."""
        ids = [node.instance for node in nodes]
        filters = [{"Name": "instance-id", "Values": ids[start : start + 200]} for start in range(0, len(ids), 200)]
        with self._asking() as client:
            found = [item for each in filters for item in machines.instances(client, [each])]
        return {item.instance_id: (item.state, item.reason) for item in found}

    def events(self, instances: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The last words of instances."""
        if not instances:
            return {}
        with self._asking() as client:
            return machines.last_events(client, instances)

    def _asking(self) -> _Asking:
        if BOTO_MISSING is not None:
            raise CloudError(f"boto3 is missing in the Python of Ansible: {BOTO_MISSING}. Remedy: pip install boto3.")
        if self._client is None:
            session = boto3.session.Session(profile_name=self._profile or None)
            config = Config(retries={"mode": "standard", "max_attempts": 8}, connect_timeout=10, read_timeout=60)
            self._client = session.client("ec2", region_name=self._region, config=config)
        return _Asking(self._client)


class _Asking:
    """Turns what botocore raises into `CloudError`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __enter__(self) -> Any:
        return self._client

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, BotoCoreError | ClientError):
            raise CloudError(explain(error, doing="see how the nodes are")) from error
