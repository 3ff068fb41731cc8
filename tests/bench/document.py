"""docs/benchmarks.md: one section for each bench, which only that bench writes; what every bench says of itself."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
DOCUMENT = PROJECT / "docs" / "benchmarks.md"
SECTIONS = ("inventory", "tunnel", "controller", "farm")
_HEAD = "# Benchmarks\n\nWritten by `make bench`. Each section tells its own command, and what else the machine did.\n"
_SECTION = re.compile(r"<!-- (\w+): begin -->\n(.*?)\n<!-- \1: end -->", re.DOTALL)


def write_section(name: str, text: str, document: Path = DOCUMENT) -> None:
    """Replace one bench's section; the others stay as they are, all in the order of SECTIONS."""
    written = document.read_text(encoding="utf-8") if document.exists() else ""
    sections: dict[str, str] = dict(_SECTION.findall(written)) | {name: text.rstrip()}
    blocks = [f"\n<!-- {one}: begin -->\n{sections[one]}\n<!-- {one}: end -->\n" for one in SECTIONS if one in sections]
    document.write_text(_HEAD + "".join(blocks), encoding="utf-8")


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """What every bench understands."""
    made = argparse.ArgumentParser(prog=f"python -m tests.bench.{name}", description=description)
    made.add_argument(
        "--document", type=Path, default=DOCUMENT, metavar="FILE", help="write there instead of docs/benchmarks.md"
    )
    return made


def command(name: str, arguments: Sequence[str]) -> str:
    """How to measure the same again: ``make bench`` as it is, or one bench with its arguments."""
    return f"`{shlex.join(['python', '-m', f'tests.bench.{name}', *arguments])}`" if arguments else "`make bench`"


def machine() -> str:
    """The machine in a few words, and how busy others keep it: this process sleeps while that is measured."""
    model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    name = model[1].strip() if model else platform.machine()
    return (
        f"{os.cpu_count()} x {name}, Linux {platform.release()}, of which other programs used "
        f"{processors_in_use(2.0):.2f} before"
    )


def processors_in_use(seconds: float) -> float:
    """How many processors are busy on average, all programs together."""
    before, begun = _busy_ticks(), time.monotonic()
    time.sleep(seconds)
    return (_busy_ticks() - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - begun)


def _busy_ticks() -> int:
    """Clock ticks of all processors since boot but for idle, iowait and what guests repeat (proc_stat(5))."""
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(
        int, Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:]
    )
    return user + nice + system + irq + softirq + steal
