"""What the inventory costs, beside amazon.aws.aws_ec2 on the same answers of EC2: ``make bench``.

Each run is one ``ansible all --list-hosts``, which is what every command pays before it starts. CPU seconds and peak
memory are the operating system's account of that process; the answers come from a process of their own, whose time does
not count. The contenders take turns, so that whatever else the machine does meets all of them.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.bench.document import PROJECT, command, machine, parser, write_section
from tests.bench.environment import environment
from tests.bench.recorded import FARM

SIZES = (0, 100, 1000, 5000, 20000)

# The targets, against the peer's cheaper configuration.
CPU_RATIO, MEMORY_RATIO, RATIOS_AT = 1 / 12, 1 / 3, 5000
NO_SLOWER_AT = 100
MILLISECONDS_PER_HOST = 0.2

OURS: dict[str, Any] = {"plugin": "renderfarm.cloud.ec2_farm", "farm": FARM, "regions": ["eu-central-1"]}
PEER_GROUPS: dict[str, Any] = {
    "plugin": "amazon.aws.aws_ec2",
    "regions": ["eu-central-1"],
    "filters": {"tag:renderfarm:farm": FARM, "instance-state-name": ["pending", "running"]},
    "hostnames": [{"name": "instance-id", "prefix": "tag:Name", "separator": "-"}],
    "strict": True,
    "compose": {"ansible_host": "private_ip_address"},
    "keyed_groups": [
        {
            "key": "{'manager': 'manager', 'render_node': 'render_nodes', 'remote_node': 'remote_nodes',"
            " 'builder': 'builders'}[ec2_tags['renderfarm:role']]",
            "separator": "",
        },
        {
            "key": "'spot' if instance_lifecycle | default('') == 'spot' else 'on_demand'",
            "separator": "",
            "parent_group": "lifecycles",
        },
        {"key": "placement.availability_zone", "prefix": "zone", "parent_group": "zones"},
        {"key": "instance_type", "prefix": "type", "parent_group": "types"},
        {"key": "state.name", "prefix": "state", "parent_group": "states"},
    ],
}
PEER_ALL: dict[str, Any] = {
    **PEER_GROUPS,
    "compose": {
        "ansible_host": "private_ip_address",
        "farm_account": "owner_id",
        "farm_image": "image_id",
        "farm_instance_id": "instance_id",
        "farm_launch_time": "launch_time.strftime('%Y-%m-%dT%H:%M:%SZ')",
        "farm_lifecycle": "instance_lifecycle | default('on-demand')",
        "farm_mac": "network_interfaces[0].mac_address",
        "farm_private_ip": "private_ip_address",
        "farm_public_ip": "public_ip_address | default('')",
        "farm_public_name": "public_dns_name | default('')",
        "farm_region": "placement.region",
        "farm_role": "ec2_tags['renderfarm:role']",
        "farm_state": "state.name",
        "farm_subnet": "subnet_id",
        "farm_tags": "ec2_tags",
        "farm_type": "instance_type",
        "farm_vpc": "vpc_id",
        "farm_zone": "placement.availability_zone",
    },
}


@dataclass
class Contender:
    """One inventory, and what each of its runs took at each size: CPU seconds, peak MB.

    What takes minutes runs ``once`` at a size, and not at all beyond it.
    """

    title: str
    file: Path
    runs: int
    once: int | None = None
    cpu: dict[int, list[float]] = field(default_factory=dict)
    memory: dict[int, list[float]] = field(default_factory=dict)

    def measure(self, size: int, endpoint: str) -> None:
        cpu, memory = run(["ansible", "-i", str(self.file), "all", "--list-hosts"], endpoint)
        self.cpu.setdefault(size, []).append(cpu)
        self.memory.setdefault(size, []).append(memory)

    def takes_turn(self, size: int, number: int) -> bool:
        if self.once is not None and size >= self.once:
            return size == self.once and number == 0
        return number < self.runs

    def seconds(self, size: int) -> float:
        return statistics.median(self.cpu[size])

    def megabytes(self, size: int) -> float:
        return statistics.median(self.memory[size])


def controller(endpoint: str) -> dict[str, str]:
    return environment(
        endpoint,
        ANSIBLE_DEPRECATION_WARNINGS="false",
        ANSIBLE_INVENTORY_ENABLED="auto,host_list",  # the project's own list has no room for the peer
    )


def run(words: list[str], endpoint: str) -> tuple[float, float]:
    """CPU seconds (user and system) and peak memory in MB of one process. A run that fails ends the bench."""
    program = str(Path(sys.executable).with_name(words[0]))
    child = subprocess.Popen(
        [program, *words[1:]],
        env=controller(endpoint),
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"{' '.join(words)} ended with {child.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


@contextmanager
def recorded_region(size: int) -> Iterator[str]:
    """The address of a server in a process of its own, whose region holds this many instances."""
    words = [sys.executable, "-m", "tests.bench.recorded", str(size)]
    with subprocess.Popen(words, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def listed(contender: Contender, endpoint: str) -> dict[str, Any]:
    """The whole inventory, as ``ansible-inventory --list`` tells it, without marks of texts that are no templates."""
    words = [str(Path(sys.executable).with_name("ansible-inventory")), "-i", str(contender.file), "--list"]
    done = subprocess.run(words, env=controller(endpoint), cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True)

    def plain(value: dict[str, Any]) -> Any:
        return value["__ansible_unsafe"] if set(value) == {"__ansible_unsafe"} else value

    found: dict[str, Any] = json.loads(done.stdout, object_hook=plain)
    return found


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Where two inventories differ in groups that have hosts, or in a host's variables that ours has."""
    found = []

    def groups(inventory: dict[str, Any]) -> dict[str, Any]:
        return {
            name: (sorted(group.get("hosts", ())), sorted(group.get("children", ())))
            for name, group in inventory.items()
            if name not in ("_meta", "all", "aws_ec2")  # the last is the peer's own
        }

    if groups(ours) != groups(theirs):
        found.append("the groups are not the same")
    own, other = ours["_meta"]["hostvars"], theirs["_meta"]["hostvars"]
    if set(own) != set(other):
        found.append("the hosts are not the same")
    for_all = {"farm_inventory_name", "farm_inventory_regions"}
    for host in set(own) & set(other):
        found += [
            f"{host}: {name} is {value!r} and {other[host].get(name)!r}"
            for name, value in own[host].items()
            if name not in for_all and other[host].get(name) != value
        ]
    return found


# -------------------------------------------------------------------------------------------------------------- parts


def parts_of_a_run(contender: Contender, endpoint: str, folder: Path, runs: int) -> dict[str, float]:
    """CPU seconds of each part of one run, medians; see ``parts``. What is in none is the start and the end."""
    result = folder / "parts.json"
    found: dict[str, list[float]] = {}
    for _ in range(runs):
        words = ["python", "-m", "tests.bench.parts", str(result), "-i", str(contender.file), "all", "--list-hosts"]
        total, _ = run(words, endpoint)
        parts: dict[str, float] = json.loads(result.read_text(encoding="utf-8"))
        parts = {"ansible-core: start, command line, plugins, end": total - sum(parts.values()), **parts}
        for title, seconds in parts.items():
            found.setdefault(title, []).append(seconds)
    return {title: statistics.median(seconds) for title, seconds in found.items()}


# ------------------------------------------------------------------------------------------------------------- report


def misses(ours: Contender, peer: Contender) -> list[str]:
    """The targets that were missed, of those whose sizes were measured."""
    found = []
    if RATIOS_AT in ours.cpu and RATIOS_AT in peer.cpu:
        cpu = ours.seconds(RATIOS_AT) / peer.seconds(RATIOS_AT)
        memory = ours.megabytes(RATIOS_AT) / peer.megabytes(RATIOS_AT)
        if cpu > CPU_RATIO:
            found.append(f"at {RATIOS_AT} instances {cpu:.3f} of the peer's CPU, more than {CPU_RATIO:.3f}")
        if memory > MEMORY_RATIO:
            found.append(f"at {RATIOS_AT} instances {memory:.3f} of the peer's memory, more than {MEMORY_RATIO:.3f}")
    if (
        NO_SLOWER_AT in ours.cpu
        and NO_SLOWER_AT in peer.cpu
        and ours.seconds(NO_SLOWER_AT) > peer.seconds(NO_SLOWER_AT)
    ):
        found.append(f"at {NO_SLOWER_AT} instances slower than the peer")
    for size in ours.cpu:
        if size >= RATIOS_AT and 0 in ours.cpu and per_host(ours, size) > MILLISECONDS_PER_HOST:
            found.append(f"{per_host(ours, size):.3f} ms per host at {size}, more than {MILLISECONDS_PER_HOST}")
    return found


def verdict(ours: Contender, peer: Contender) -> str:
    """The targets that were missed, and those of which nobody knows because their size was not measured."""
    unknown = [size for size in (RATIOS_AT, NO_SLOWER_AT) if size not in ours.cpu or size not in peer.cpu]
    return "; ".join([*misses(ours, peer), *(f"not measured at {size} instances" for size in unknown)]) or "none"


def per_host(contender: Contender, size: int) -> float:
    """CPU milliseconds for each host above those of an empty farm."""
    return (contender.seconds(size) - contender.seconds(0)) / size * 1000


def report(contenders: list[Contender], parts: dict[str, float], about: dict[str, Any]) -> str:
    """The section for docs/benchmarks.md. ``about``: ``command``, ``machine``, ``profiled``, ``bare``."""
    ours, *peers = contenders
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("ansible-core", "botocore"))
    lines = [
        "## Inventory",
        "",
        f"{about['command']} (medians of {ours.runs} runs of `ansible all --list-hosts`, of aws_ec2 {peers[0].runs}, "
        f"taken in turns) on {about['machine']}, Python {sys.version.split()[0]}, {versions}. CPU seconds (user and "
        "system) and peak memory of the whole process, ansible-core's own start included; the server of the recorded "
        "answers is another process and not counted."
        + "".join(f" `{one.title}` ran once with {one.once}." for one in peers if one.once in one.cpu),
        "",
        "| instances | "
        + " | ".join(f"{one.title}: CPU s, MB" for one in contenders)
        + " | ratio CPU | ratio memory |",
        "|---|" + "---|" * (len(contenders) + 2),
    ]
    for size in sorted(ours.cpu):
        cells = [f"{one.seconds(size):.2f}, {one.megabytes(size):.0f}" if size in one.cpu else "" for one in contenders]
        ratios = ["", ""]
        if size in peers[0].cpu:
            ratios = [
                f"1/{peers[0].seconds(size) / ours.seconds(size):.1f}",
                f"1/{peers[0].megabytes(size) / ours.megabytes(size):.1f}",
            ]
        lines.append(f"| {size} | " + " | ".join([*cells, *ratios]) + " |")
    growth = ", ".join(f"{per_host(ours, size):.3f} ms at {size}" for size in sorted(ours.cpu) if size >= 1000)
    lines += [
        "",
        f"- The ratios are to `{peers[0].title}`, the cheaper configuration, which has the same groups and "
        f"`ansible_host`; `{peers[1].title}` also has the same variables under the same names. All were compared, "
        "group by group and variable by variable, before they were timed.",
        f"- CPU for each host above an empty farm: {growth or 'not measured'} (at most {MILLISECONDS_PER_HOST}).",
        f"- Targets at {RATIOS_AT} instances: 1/{1 / CPU_RATIO:.0f} of the CPU, 1/{1 / MEMORY_RATIO:.0f} of memory; "
        f"at {NO_SLOWER_AT}: no slower. Missed: {verdict(ours, peers[0])}.",
        "",
        f"Where the CPU time of one run goes with {about['profiled']} instances (a clock around these parts only, "
        "which costs nothing itself; medians):",
        "",
        "| part | CPU seconds | share |",
        "|---|---|---|",
    ]
    total = sum(parts.values())
    lines += [f"| {title} | {seconds:.3f} | {seconds / total:.0%} |" for title, seconds in parts.items()]
    lines += [
        "",
        f"`ansible -i localhost, all --list-hosts`, which asks nobody, takes {about['bare']:.2f} CPU seconds.",
    ]
    return "\n".join([*lines, "", _LIMITS.strip()])


_LIMITS = """
What is left, and why it stays:

- *ansible-core's start* is what a command that asks nobody takes, too. A plugin has no say in it.
- *botocore's import* brings credentials (SSO, roles, profiles), signatures, retries and proxies. To do these again
  would save most of it and be less safe. Its model of EC2, its paginators and its parser are not loaded.
- *Answers to elements to fields*: expat builds the tree of 4.3 KB for each instance, then 15 fields are taken out.
  EC2 has no way to ask for fewer fields and no other format. Handlers on the bare parser take as long before they keep
  anything; patterns over the bytes would take a hostile tag for a field.
- *add_host, add_child* are the only ways into ansible-core's inventory, and walk the ancestors of each group for each
  host. Variables go into the host at once: `set_variable` would copy and tag each value, which takes longer than both.
- *read the sources, reconcile_inventory, host_vars, pattern* are ansible-core's own loops over all hosts.
"""


def main(words: Sequence[str] | None = None) -> int:
    options = parser("inventory", __doc__)
    options.add_argument("--runs", type=int, default=5, help="how often each takes its turn (default: %(default)s)")
    options.add_argument("--peer-runs", type=int, help="how often aws_ec2 takes its turn (default: as --runs)")
    options.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="instances (default: %(default)s)")
    arguments = options.parse_args(words)
    about: dict[str, Any] = {"command": command("inventory", words or sys.argv[1:]), "machine": machine()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        contenders = line_up(folder, arguments.runs, arguments.peer_runs or arguments.runs)
        ours, peer, _ = contenders
        if found := unfair(*contenders):
            print("the contenders do not make the same inventory:", *found[:10], sep="\n  ", file=sys.stderr)
            return 1
        for size in sorted({0, *arguments.sizes}):
            with recorded_region(size) as endpoint:
                for number in range(arguments.runs):
                    for one in contenders:
                        if one.takes_turn(size, number):
                            one.measure(size, endpoint)
                            print(f"{size} {one.title}: {one.cpu[size][-1]:.2f} s", file=sys.stderr, flush=True)
        about["profiled"] = min(max(arguments.sizes), RATIOS_AT)
        with recorded_region(about["profiled"]) as endpoint:
            parts = parts_of_a_run(ours, endpoint, folder, arguments.runs)
            bare = [
                run(["ansible", "-i", "localhost,", "all", "--list-hosts"], endpoint) for _ in range(arguments.runs)
            ]
        about["bare"] = statistics.median(cpu for cpu, _ in bare)
    section = report(contenders, parts, about)
    print(section)
    write_section("inventory", section, arguments.document)
    missed = misses(ours, peer)
    print(*missed, sep="\n", file=sys.stderr)
    return 1 if missed else 0


def line_up(folder: Path, runs: int, peer_runs: int) -> list[Contender]:
    """Ours, the peer with the same groups, the peer with the same groups and variables."""

    def contender(title: str, file: str, settings: dict[str, Any], once: int | None = None) -> Contender:
        (folder / file).write_text(yaml.safe_dump(settings))
        return Contender(title, folder / file, peer_runs if once else runs, once)

    return [
        contender("ec2_farm", "farm.ec2.yml", OURS),
        contender("aws_ec2, same groups", "groups.aws_ec2.yml", PEER_GROUPS, 20000),
        contender("aws_ec2, same groups and variables", "all.aws_ec2.yml", PEER_ALL, 5000),
    ]


def unfair(ours: Contender, peer: Contender, peer_all: Contender) -> list[str]:
    """Where the contenders do not make the same inventory of a hundred instances."""
    with recorded_region(100) as endpoint:
        own = listed(ours, endpoint)
        found = differences(own, listed(peer_all, endpoint))
        own["_meta"]["hostvars"] = {
            host: {"ansible_host": variables["ansible_host"]} for host, variables in own["_meta"]["hostvars"].items()
        }
        return found + differences(own, listed(peer, endpoint))


if __name__ == "__main__":
    sys.exit(main())
