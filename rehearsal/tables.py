"""Short text tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def text_table(rows: Sequence[Mapping[str, str]], *, empty: str = "(nothing)") -> str:
    """Write rows with their common keys as headings; columns that hold only numbers are aligned right."""
    if not rows:
        return empty
    columns = list(rows[0])
    widths = {column: max(len(column), *(len(row[column]) for row in rows)) for column in columns}
    numeric = {column: all(_is_number(row[column]) for row in rows) for column in columns}

    def line(cells: Mapping[str, str]) -> str:
        return "  ".join(
            cells[column].rjust(widths[column]) if numeric[column] else cells[column].ljust(widths[column])
            for column in columns
        ).rstrip()

    rule = "  ".join("-" * widths[column] for column in columns)
    return "\n".join([line({column: column for column in columns}), rule, *(line(row) for row in rows)])


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit() or text in {"", "-"}
