# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tables of plain text for the end of a playbook."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Column:
    """One column: which key it shows, its heading, and whether numbers stand at the right."""

    key: str
    title: str
    right: bool = False


def column(description: str | Mapping[str, Any]) -> Column:
    """A column from its key alone or from ``{key, title, align}``. ValueError when it cannot be understood."""
    if isinstance(description, str):
        return Column(description, description)
    unknown = sorted(set(description) - {"key", "title", "align"})
    if "key" not in description or unknown:
        raise ValueError(f"a column is a key or has key, title and align, not {dict(description)!r}")
    align = description.get("align", "left")
    if align not in ("left", "right"):
        raise ValueError(f"align is {align!r}: use left or right")
    return Column(str(description["key"]), str(description.get("title", description["key"])), align == "right")


def text_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str | Mapping[str, Any]]) -> str:
    """Rows under headings, padded with spaces, without spaces at line ends. Missing values are shown as ``-``."""
    shown = [column(description) for description in columns]
    cells = [[_cell(row.get(each.key)) for each in shown] for row in rows]
    titles = [each.title for each in shown]
    widths = [max(map(_width, texts)) for texts in zip(titles, *cells, strict=True)]
    lines = [titles, ["-" * width for width in widths], *cells]
    return "\n".join(
        "  ".join(_pad(text, width, each.right) for text, width, each in zip(line, widths, shown, strict=True)).rstrip()
        for line in lines
    )


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_cell, value)) or "-"
    # One row stays one line, and nothing in it can steer a terminal.
    return "".join(character if character.isprintable() else " " for character in str(value))


def _width(text: str) -> int:
    """Columns of a terminal: wide East Asian characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def _pad(text: str, width: int, right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space
