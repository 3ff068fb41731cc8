"""docs/benchmarks.md: one section for each bench, which only that bench writes."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
DOCUMENT = PROJECT / "docs" / "benchmarks.md"
_HEAD = "# Benchmarks\n\nWritten by `make bench`.\n"


def write_section(name: str, text: str) -> None:
    """Replace one bench's section, or add it at the end; the others stay."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    document = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else _HEAD
    block = f"{begin}\n{text.rstrip()}\n{end}"
    if begin in document:
        head, _, rest = document.partition(begin)
        document = head + block + rest.partition(end)[2]
    else:
        document = f"{document.rstrip()}\n\n{block}\n"
    DOCUMENT.write_text(document, encoding="utf-8")


def machine() -> str:
    """The machine in a few words."""
    model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    name = model[1].strip() if model else platform.machine()
    return f"{os.cpu_count()} x {name}, Linux {platform.release()}"
