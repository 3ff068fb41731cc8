"""All benches one after the other, into one document: ``make bench``."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.document import DOCUMENT, PROJECT, SECTIONS

# To see that each bench works; the figures mean nothing.
QUICK: dict[str, list[str]] = {
    "inventory": ["--runs", "1", "--sizes", "0", "100"],
    "tunnel": ["--rounds", "1", "--megabytes", "5"],
    "controller": ["--sizes", "1", "2", "--records", "2", "4"],
    "farm": ["--nodes", "1"],
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small and once, only to see that each bench works")
    parser.add_argument("--document", type=Path, default=DOCUMENT, metavar="FILE", help="(default: docs/benchmarks.md)")
    arguments = parser.parse_args()
    if arguments.quick and arguments.document == DOCUMENT:
        parser.error("--quick needs --document: its figures are not for docs/benchmarks.md")
    failed = []
    for name in SECTIONS:
        print(f"bench {name}", file=sys.stderr, flush=True)
        more = QUICK[name] if arguments.quick else []
        where = [] if arguments.document == DOCUMENT else ["--document", str(arguments.document)]
        begun = time.monotonic()
        code = subprocess.run([sys.executable, "-m", f"tests.bench.{name}", *where, *more], cwd=PROJECT).returncode
        print(f"bench {name}: exit code {code}, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        if code:
            failed.append(name)
    if failed:
        print(f"failed, or missed a target: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
