"""What the inventory costs, beside amazon.aws.aws_ec2 on the same answers of EC2: ``make bench``.

Each run is one ``ansible all --list-hosts``, which is what every command pays before it starts. CPU seconds and peak
memory are the operating system's account of that process; the answers come from a process of their own, whose time does
not count. The contenders take turns, so that whatever else the machine does meets all of them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.bench.document import PROJECT, machine, write_section
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


def environment(endpoint: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ANSIBLE_"))}
    return ours | {
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
        "ANSIBLE_DEPRECATION_WARNINGS": "false",
        "ANSIBLE_INVENTORY_ENABLED": "auto",  # the project's own list has no room for the peer
        "AWS_ACCESS_KEY_ID": "recorded",
        "AWS_SECRET_ACCESS_KEY": "recorded",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "*",
    }


def run(command: list[str], endpoint: str) -> tuple[float, float]:
    """CPU seconds (user and system) and peak memory in MB of one process. A run that fails ends the bench."""
    program = str(Path(sys.executable).with_name(command[0]))
    child = subprocess.Popen(
        [program, *command[1:]],
        env=environment(endpoint),
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


@contextmanager
def recorded_region(size: int) -> Iterator[str]:
    """The address of a server in a process of its own, whose region holds this many instances."""
    command = [sys.executable, "-m", "tests.bench.recorded", str(size)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def listed(contender: Contender, endpoint: str) -> dict[str, Any]:
    """The whole inventory, as ``ansible-inventory --list`` tells it, without marks of texts that are no templates."""
    command = [str(Path(sys.executable).with_name("ansible-inventory")), "-i", str(contender.file), "--list"]
    done = subprocess.run(
        command, env=environment(endpoint), cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True
    )

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


# ------------------------------------------------------------------------------------------------------------ profile

# What is shown of a profile: title, end of the file's name, function; the time of what is shown below a line is not in
# that line. Times are cumulative.
_PARTS = (
    ("plugin: read its own settings", "inventory/ec2_farm.py", "_read_settings", ()),
    ("botocore: import, sessions, clients", "ec2_inventory_api.py", "connect", ()),
    ("botocore: sign, send, receive", "ec2_inventory_api.py", "_fetch_place", ("read_page",)),
    ("plugin and expat: XML to fields", "ec2_inventory_api.py", "read_page", ()),
    ("plugin: names, groups, variables", "ec2_inventory.py", "build", ()),
    ("ansible-core: add_host, add_child for each host", "inventory/ec2_farm.py", "_add", ()),
    ("ansible-core: reconcile_inventory", "inventory/data.py", "reconcile_inventory", ()),
    ("ansible-core: look for host_vars of each host", "vars/plugins.py", "get_vars_from_inventory_sources", ()),
    ("ansible-core: resolve the pattern", "inventory/manager.py", "list_hosts", ()),
)


def profile(contender: Contender, endpoint: str, folder: Path) -> list[tuple[str, float]]:
    """Parts of one run and their seconds, as cProfile counts them."""
    result = folder / "profile"
    command = ["python", "-m", "cProfile", "-o", str(result), str(Path(sys.executable).with_name("ansible"))]
    run([*command, "-i", str(contender.file), "all", "--list-hosts"], endpoint)
    stats = pstats.Stats(str(result))
    by_name = {(file, function): values for (file, _, function), values in stats.stats.items()}  # type: ignore[attr-defined]

    def seconds(end: str, function: str) -> float:
        return sum(values[3] for (file, name), values in by_name.items() if file.endswith(end) and name == function)

    parts = []
    for title, end, function, without in _PARTS:
        parts.append((title, seconds(end, function) - sum(seconds(end, inner) for inner in without)))
    total: float = stats.total_tt  # type: ignore[attr-defined]
    return [("ansible-core: start, command line, plugins", total - sum(part for _, part in parts)), *parts]


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


def per_host(contender: Contender, size: int) -> float:
    """CPU milliseconds for each host above those of an empty farm."""
    return (contender.seconds(size) - contender.seconds(0)) / size * 1000


def report(contenders: list[Contender], parts: list[tuple[str, float]], profiled: int) -> str:
    """The section for docs/benchmarks.md."""
    ours, *peers = contenders
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("ansible-core", "botocore"))
    lines = [
        "## Inventory",
        "",
        f"`make bench` (medians of {ours.runs} runs of `ansible all --list-hosts`, of aws_ec2 {peers[0].runs}, taken "
        f"in turns) on {machine()}, Python {sys.version.split()[0]}, {versions}. CPU seconds (user and system) and "
        "peak memory of the whole process, ansible-core's own start included; the server of the recorded answers "
        "is another process and not counted."
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
        f"- CPU for each host above an empty farm: {growth} (at most {MILLISECONDS_PER_HOST}).",
        f"- Targets at {RATIOS_AT} instances: 1/{1 / CPU_RATIO:.0f} of the CPU, 1/{1 / MEMORY_RATIO:.0f} of memory; "
        f"at {NO_SLOWER_AT}: no slower. Missed: {'; '.join(misses(ours, peers[0])) or 'none'}.",
        "",
        f"Where the time of one run goes with {profiled} instances (cProfile, which makes Python's part look larger):",
        "",
        "| part | seconds | share |",
        "|---|---|---|",
    ]
    total = sum(seconds for _, seconds in parts)
    lines += [f"| {title} | {seconds:.3f} | {seconds / total:.0%} |" for title, seconds in parts]
    return "\n".join([*lines, "", _LIMITS.strip()])


_LIMITS = """
What is left, and why it stays:

- *ansible-core's start* is what `ansible -i localhost, all --list-hosts` takes, too. A plugin has no say in it.
- *botocore's import* brings credentials (SSO, roles, profiles), signatures, retries and proxies. To do these again
  would save a fifth of a second and be less safe. Its model of EC2, its paginators and its parser are not loaded.
- *XML to fields*: half is expat, which builds the tree of an answer of 4 KB for each instance; half is taking 15 fields
  out of it. EC2 has no way to ask for fewer fields and no other format. Handlers on the bare parser cost the same;
  patterns over the bytes would take a hostile tag for a field.
- *add_host, add_child* are the only ways into ansible-core's inventory, and walk the ancestors of each group for each
  host. Variables go into the host at once: `set_variable` would copy and tag each value, which takes longer than both.
- *reconcile_inventory, host_vars, pattern* are ansible-core's own loops over all hosts.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.inventory", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="how often each takes its turn (default: %(default)s)")
    parser.add_argument("--peer-runs", type=int, help="how often aws_ec2 takes its turn (default: as --runs)")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="instances (default: %(default)s)")
    parser.add_argument("--print", action="store_true", help="leave docs/benchmarks.md alone")
    arguments = parser.parse_args()
    arguments.peer_runs = arguments.peer_runs or arguments.runs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def contender(title: str, file: str, settings: dict[str, Any], once: int | None = None) -> Contender:
            (folder / file).write_text(yaml.safe_dump(settings))
            return Contender(title, folder / file, arguments.peer_runs if once else arguments.runs, once)

        ours = contender("ec2_farm", "farm.ec2.yml", OURS)
        peer = contender("aws_ec2, same groups", "groups.aws_ec2.yml", PEER_GROUPS, 20000)
        peer_all = contender("aws_ec2, same groups and variables", "all.aws_ec2.yml", PEER_ALL, 5000)
        contenders = [ours, peer, peer_all]
        with recorded_region(100) as endpoint:
            own = listed(ours, endpoint)
            found = differences(own, listed(peer_all, endpoint))
            own["_meta"]["hostvars"] = {
                host: {"ansible_host": variables["ansible_host"]}
                for host, variables in own["_meta"]["hostvars"].items()
            }
            found += differences(own, listed(peer, endpoint))
        if found:
            print("the contenders do not make the same inventory:", *found[:10], sep="\n  ", file=sys.stderr)
            return 1
        for size in arguments.sizes:
            with recorded_region(size) as endpoint:
                for number in range(arguments.runs):
                    for one in contenders:
                        if one.takes_turn(size, number):
                            one.measure(size, endpoint)
                            print(f"{size} {one.title}: {one.cpu[size][-1]:.2f} s", file=sys.stderr)
        profiled = min(max(arguments.sizes), RATIOS_AT)
        with recorded_region(profiled) as endpoint:
            parts = profile(ours, endpoint, folder)
    section = report(contenders, parts, profiled)
    print(section)
    if not arguments.print:
        write_section("inventory", section)
    missed = misses(ours, peer)
    print(*missed, sep="\n", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
