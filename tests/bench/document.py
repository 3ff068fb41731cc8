"""``docs/benchmarks.md``: one section for each bench."""

from __future__ import annotations

from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"


def write_down(name: str, section: str) -> None:
    """Replace the section of one bench; the others stay."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = DOCUMENT.read_text() if DOCUMENT.exists() else "# Benchmarks\n\nWritten by `make bench`.\n"
    block = f"{begin}\n{section}\n{end}"
    if begin in text:
        head, _, rest = text.partition(begin)
        text = head + block + rest.partition(end)[2]
    else:
        text = f"{text.rstrip()}\n\n{block}\n"
    DOCUMENT.write_text(text)
