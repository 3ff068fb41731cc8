"""What a fleet costs the controller, and how many API calls it takes: ``python -m tests.bench.fleet``.

The nodes are records of the simulated region that run and count as registered; nothing of Windows is modelled. So the
figures are the controller's own: its CPU seconds, and the calls that EC2 would count. They go into
``docs/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import json
import os
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
from tests.bench.document import write_section

PROJECT = Path(__file__).resolve().parents[2]
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
            yield (
                cloud,
                {
                    **os.environ,
                    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{listener.getsockname()[1]}",
                    "AWS_ACCESS_KEY_ID": "rehearsal",
                    "AWS_SECRET_ACCESS_KEY": "rehearsal",
                    "AWS_EC2_METADATA_DISABLED": "true",
                    "NO_PROXY": "*",
                    "RENDERFARM_STATE": str(folder),
                },
            )
        finally:
            cloud.stop()


def run(cloud: Cloud, environment: dict[str, str], playbook: str, nodes: int) -> Run:
    """Run a playbook. CalledProcessError when it fails, after its output was shown."""
    settings = {
        "farm_nodes": nodes,
        "farm_cloud_network": "10.0.0.0/20",
        "farm_zones": [f"{REGION}{zone}" for zone in "abc"],
        "ec2_manager_image": stock_id(next(iter(STOCK)), REGION),
    }
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "inventory/farm.ec2.yml", playbook]
    cloud.calls.clear()
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [*command, "-e", json.dumps(settings)],
        cwd=PROJECT,
        env=environment,
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
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as (cloud, environment):
        steps = ("tests/bench/fleet.yml", "tests/bench/fleet.yml", "playbooks/farm-down.yml")
        return [run(cloud, environment, playbook, nodes) for playbook in steps]


def report(measured: dict[int, list[Run]]) -> str:
    """This bench's section."""
    names = ("up", "up again", "down")
    lines = [
        "## Fleet",
        "",
        "`python -m tests.bench.fleet`: what `farm-up.yml` does for its nodes (network, launch template, launch,",
        "inventory, judgement) and `farm-down.yml`, against the simulated region. The nodes are records that run and",
        "count as registered. CPU seconds are the controller's, without the region's.",
        "",
        "| nodes | step | AWS calls | of them changes | CPU seconds | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for nodes, runs in measured.items():
        for name, one in zip(names, runs, strict=True):
            lines.append(f"| {nodes:,} | {name} | {one.calls} | {one.changes} | {one.cpu:.1f} | {one.wall:.0f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.fleet", description=__doc__)
    parser.add_argument("--print", action="store_true", help="leave docs/benchmarks.md alone")
    options = parser.parse_args(arguments)
    measured = {nodes: measure(nodes) for nodes in SIZES}
    section = report(measured)
    print(section)
    if not options.print:
        write_section("fleet", section)
    for smallest, largest in zip(measured[SIZES[0]], measured[SIZES[-1]], strict=True):
        if largest.calls > smallest.calls + MOST_CALLS_MORE:
            print(f"{SIZES[-1]} nodes take {largest.calls} calls, {SIZES[0]} take {smallest.calls}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
