"""What farm-up.yml and farm-down.yml cost the controller by the number of nodes: ``python -m tests.bench.controller``.

Whole rehearsals: the studio, the tunnel, the manager and all playbooks are those of ``python -m rehearsal prove``. With
``--sizes`` each node is a machine of its own, with ``--records`` a record that EC2 lists and that is registered.
CPU seconds (user and system) are those of ansible-playbook and all that it starts on the controller.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rehearsal.session import Rehearsal, Step
from tests.bench.document import command, machine, parser, write_section

HERE = Path(__file__).parent
WAITING = "renderfarm.cloud.farm_wait"
MOST_GROWTH = 1.3  # CPU seconds of the largest farm of full nodes against the smallest one's, the wait excluded
MOST_CALLS_MORE = 20  # AWS calls of the largest farm of records against the smallest one's
# A thousand nodes need more than a /24, and no probe is answered by a record.
WIDE = {"farm_cloud_network": "10.0.0.0/20", "link_check_nodes": 0}
Task = tuple[str, str, float]


@dataclass
class Run:
    """One playbook."""

    step: Step
    tasks: list[Task]

    @property
    def waiting(self) -> float:
        """CPU seconds of the tasks that wait for the nodes."""
        return sum(cpu for action, _, cpu in self.tasks if action == WAITING)

    @property
    def working(self) -> float:
        return self.step.cpu - self.waiting

    @property
    def trips(self) -> int:
        """Commands over WinRM to all machines."""
        return sum(self.step.trips.values())


class Bench:
    """One rehearsal."""

    def __init__(self, folder: Path, *, records: bool) -> None:
        self._folder = folder
        self._tasks = folder / "tasks.json"
        self._settings: dict[str, object] = dict(WIDE) if records else {}
        flags = ["--records"] if records else []
        subprocess.run([sys.executable, "-m", "rehearsal", "up", "--dir", str(folder), *flags], check=True)
        self._rehearsal = Rehearsal(folder, lambda text: print(text, file=sys.stderr))
        os.environ.update(
            CPU_OF_TASKS=str(self._tasks),
            ANSIBLE_CALLBACK_PLUGINS=str(HERE / "callback_plugins"),
            ANSIBLE_CALLBACKS_ENABLED="cpu_of_tasks",
        )

    def end(self) -> None:
        subprocess.run([sys.executable, "-m", "rehearsal", "down", "--dir", str(self._folder)], check=True)

    def run(self, playbook: str, nodes: int, title: str) -> Run:
        settings = json.dumps({**self._settings, "farm_nodes": nodes})
        step = self._rehearsal.playbook(playbook, "-e", settings, title=f"{title} with {nodes}")
        return Run(step, [(action, name, cpu) for action, name, cpu in json.loads(self._tasks.read_text())])


Measured = dict[int, dict[str, Run]]


def measure(sizes: Sequence[int], *, records: bool) -> Measured:
    """Up from nothing, up again and down; each size in a rehearsal of its own, for what was before costs, too."""
    found: Measured = {}
    for nodes in sizes:
        with tempfile.TemporaryDirectory() as parent:
            bench = Bench(Path(parent) / "rehearsal", records=records)
            try:
                bench.run("bake-ami.yml", nodes, "bake-ami.yml")
                found[nodes] = {
                    "farm-up.yml": bench.run("farm-up.yml", nodes, "farm-up.yml"),
                    "farm-up.yml again": bench.run("farm-up.yml", nodes, "farm-up.yml again"),
                    "farm-down.yml": bench.run("farm-down.yml", nodes, "farm-down.yml"),
                }
            finally:
                bench.end()
    return found


def table(measured: Measured) -> list[str]:
    """One row for each playbook of each size."""
    lines = [
        "| nodes | playbook | CPU seconds | of them waiting | AWS calls | that change | WinRM round trips | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for nodes, runs in measured.items():
        for name, run in runs.items():
            lines.append(
                f"| {nodes:,} | `{name}` | {run.step.cpu:.1f} | {run.waiting:.1f} | {run.step.calls} | "
                f"{len(run.step.changes)} | {run.trips} | {run.step.seconds:.0f} |"
            )
    return lines


def growing(measured: Measured, name: str, most: int = 12) -> list[str]:
    """The tasks of a playbook that cost most more with the most nodes than with the fewest."""
    smallest, largest = min(measured), max(measured)
    cost: Counter[str] = Counter()
    for sign, nodes in ((-1, smallest), (1, largest)):
        for _, task, cpu in measured[nodes][name].tasks:
            cost[task] += sign * cpu  # type: ignore[assignment]
    return [f"{cpu:+.2f} s  {task}" for task, cpu in cost.most_common(most)]


def growth(measured: Measured, name: str) -> float:
    """CPU seconds with the most nodes for each of those with the fewest, the wait excluded."""
    return measured[max(measured)][name].working / measured[min(measured)][name].working


def report(full: Measured, records: Measured, about: str) -> str:
    """This bench's section."""
    lines = [
        "## Controller",
        "",
        f"{about}: whole rehearsals, each ran once; CPU seconds of ansible-playbook and all that it starts. Waiting is "
        "what the tasks take that wait for nodes. Seconds include the rehearsal's own work.",
    ]
    if full:
        lines += ["", "Each node is a machine of its own:", "", *table(full), ""]
        lines += [
            f"- `{name}`: {growth(full, name):.2f} times the CPU seconds for {max(full)} nodes as for {min(full)}, "
            "the wait excluded."
            for name in next(iter(full.values()))
        ]
    if records:
        lines += [
            "",
            "Each node is a record that EC2 lists and that is registered:",
            "",
            *table(records),
            "",
        ]
        lines += [
            f"- `{name}`: {growth(records, name):.2f} times the CPU seconds for {max(records):,} nodes as for "
            f"{min(records)}, the wait excluded."
            for name in next(iter(records.values()))
        ]
    return "\n".join(lines)


def missed(full: Measured, records: Measured) -> list[str]:
    """A sentence for each bound that does not hold."""
    found = []
    if full and growth(full, "farm-up.yml") > MOST_GROWTH:
        found.append(f"farm-up.yml costs {growth(full, 'farm-up.yml'):.2f} times as much for {max(full)} nodes")
    for name in next(iter(records.values()), {}):
        few, many = (records[size(records)][name].step.calls for size in (min, max))
        if many > few + MOST_CALLS_MORE:
            found.append(f"{name} takes {many} AWS calls for {max(records)} nodes and {few} for {min(records)}")
    return found


def main(words: Sequence[str] | None = None) -> int:
    options = parser("controller", __doc__)
    options.add_argument("--sizes", type=int, nargs="*", default=[5, 50], help="farms of full nodes (default: 5 50)")
    options.add_argument(
        "--records", type=int, nargs="*", default=[10, 100, 1000], help="farms of records (default: 10 100 1000)"
    )
    arguments = options.parse_args(words)
    about = f"{command('controller', words or sys.argv[1:])} on {machine()}"
    full = measure(arguments.sizes, records=False) if arguments.sizes else {}
    records = measure(arguments.records, records=True) if arguments.records else {}
    section = report(full, records, about)
    print(section)
    for measured in (full, records):
        if len(measured) > 1:
            print("\nWhat grows in farm-up.yml:", *growing(measured, "farm-up.yml"), sep="\n", file=sys.stderr)
    write_section("controller", section, arguments.document)
    problems = missed(full, records)
    print(*problems, sep="\n", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
