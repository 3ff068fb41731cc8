"""What a fleet costs the controller, and how many API calls it takes: ``python -m tests.bench.fleet``.

The nodes are records of the simulated region that run and count as registered; nothing of Windows is modelled. So the
figures are the controller's own: its CPU seconds, and the calls that EC2 would count. They go into
``docs/benchmarks.md``.
"""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rehearsal.cloud import Cloud, CloudSettings
from rehearsal.cloud.catalog import STOCK, stock_id
from tests.bench.controller import environment
from tests.bench.document import PROJECT, command, machine, parser, write_section

SIZES = (10, 100, 1000)
MOST_CALLS_MORE = 20  # that a thousand nodes may need more than ten
REGION = "eu-central-1"


@dataclass
class Run:
    """One playbook: what it asked of AWS, what of that changes something, CPU and wall seconds of the controller."""

    calls: int
    changes: int
    cpu: float
    wall: float


@contextmanager
def served(folder: Path) -> Iterator[tuple[Cloud, dict[str, str]]]:
    """A region and the environment of a controller that knows no other."""
    cloud = Cloud(CloudSettings(pending_seconds=1.0, stopping_seconds=1.0))
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        cloud.serve(listener)
        try:
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            yield cloud, environment(address, RENDERFARM_STATE=str(folder))
        finally:
            cloud.stop()


def run(cloud: Cloud, controller: dict[str, str], playbook: str, nodes: int) -> Run:
    """Run a playbook. CalledProcessError when it fails, after its output was shown."""
    settings = {
        "farm_nodes": nodes,
        "farm_cloud_network": "10.0.0.0/20",
        "farm_zones": [f"{REGION}{zone}" for zone in "abc"],
        "ec2_manager_image": stock_id(next(iter(STOCK)), REGION),
    }
    words = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "inventory/farm.ec2.yml", playbook]
    cloud.calls.clear()
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [*words, "-e", json.dumps(settings)],
        cwd=PROJECT,
        env=controller,
        capture_output=True,
        text=True,
        check=False,
    )
    wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-2000:], file=sys.stderr)
        done.check_returncode()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(len(cloud.calls), sum(call.mutating for call in cloud.calls), cpu, wall)


def measure(nodes: int) -> list[Run]:
    """Up, up again, and down, in a region of its own."""
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as (cloud, controller):
        steps = ("tests/bench/fleet.yml", "tests/bench/fleet.yml", "playbooks/farm-down.yml")
        return [run(cloud, controller, playbook, nodes) for playbook in steps]


def report(measured: dict[int, list[Run]], about: str) -> str:
    """This bench's section."""
    names = ("up", "up again", "down")
    lines = [
        "## Fleet",
        "",
        f"{about}: what `farm-up.yml` does for its nodes (network, launch template, launch, inventory, judgement) and "
        "`farm-down.yml`, against the simulated region. The nodes are records that run and count as registered. CPU "
        "seconds are the controller's, without the region's. Each ran once.",
        "",
        "| nodes | step | AWS calls | of them changes | CPU seconds | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for nodes, runs in measured.items():
        for name, one in zip(names, runs, strict=True):
            lines.append(f"| {nodes:,} | {name} | {one.calls} | {one.changes} | {one.cpu:.1f} | {one.wall:.0f} |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    options = parser("fleet", __doc__)
    options.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="nodes (default: %(default)s)")
    arguments = options.parse_args(words)
    about = f"{command('fleet', words or sys.argv[1:])} on {machine()}"
    measured = {nodes: measure(nodes) for nodes in arguments.sizes}
    section = report(measured, about)
    print(section)
    write_section("fleet", section, arguments.document)
    fewest, most = min(measured), max(measured)
    for few, many in zip(measured[fewest], measured[most], strict=True):
        if many.calls > few.calls + MOST_CALLS_MORE:
            print(f"{most} nodes take {many.calls} calls, {fewest} take {few.calls}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
