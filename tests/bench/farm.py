"""What a farm costs the controller, and how fast its nodes are there: ``make bench``.

One ``python -m rehearsal prove``; the figures are those of its own tables.
"""

from __future__ import annotations

import re
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rehearsal.proof import prove
from tests.bench.document import command, machine, parser, write_section

UP, AGAIN = "farm-up.yml", "farm-up.yml again"
Row = dict[str, str]


def rows(table: str) -> list[Row]:
    """The rows of a text table: headings, a rule of dashes as wide as each column, rows."""
    headings, rule, *lines = table.splitlines()
    spans = [match.span() for match in re.finditer("-+", rule)]
    return [
        {headings[a:b].strip(): line[a : b if b < spans[-1][1] else None].strip() for a, b in spans} for line in lines
    ]


def table_with(tables: list[str], heading: str) -> list[Row]:
    """The rows of the table whose first heading this is."""
    found = [table for table in tables if re.match(rf"{heading} .*\n-+ ", table)]
    if len(found) != 1:
        raise SystemExit(f"the rehearsal printed {len(found)} tables that begin with '{heading}', expected one")
    return rows(found[0])


def round_trips(step: Row) -> int:
    """Over all machines: ``studio-manager 41, studio-workstation 12`` is 53."""
    return sum(int(number) for number in re.findall(r" (\d+)(?:,|$)", step["WinRM round trips"]))


def report(nodes: int, steps: list[Row], machines: list[Row], about: str) -> str:
    """The section for docs/benchmarks.md."""
    by_name = {step["playbook"]: step for step in steps}
    lines = [
        "## Farm",
        "",
        f"{about}, one `python -m rehearsal prove --nodes {nodes}`. Its Windows machines start at once and install "
        "nothing: the seconds are those of the controller and of the nodes' agents.",
        "",
        "| playbook | seconds | seconds per node | AWS calls | WinRM round trips | round trips per node |",
        "|---|---|---|---|---|---|",
    ]
    for name in (UP, AGAIN):
        step, trips = by_name[name], round_trips(by_name[name])
        lines.append(
            f"| `{name}` | {step['seconds']} | {float(step['seconds']) / nodes:.1f} | {step['AWS calls']} | {trips} "
            f"({step['WinRM round trips']}) | {trips / nodes:.1f} |"
        )
    seconds = [float(row["seconds"]) for row in machines if row["role"] == "render_node"]
    lines += [
        "",
        "- Render nodes are given no command by the controller, so round trips do not grow with their number.",
        f"- From launch to registration with the manager: {statistics.median(seconds):.1f} s in the median of "
        f"{len(seconds)} nodes, {min(seconds):.1f} to {max(seconds):.1f} s.",
        "- How fast the tunnel is stands under Tunnel.",
    ]
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    options = parser("farm", __doc__)
    options.add_argument("--nodes", type=int, default=5, help="render nodes (default: %(default)s)")
    arguments = options.parse_args(words)
    about = f"{command('farm', words or sys.argv[1:])} on {machine()}"
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        print(text, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        failed = prove(Path(folder) / "rehearsal", arguments.nodes, keep=False, say=say)
    if failed:
        return failed
    section = report(arguments.nodes, table_with(said, "playbook"), table_with(said, "machine"), about)
    print(section)
    write_section("farm", section, arguments.document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
