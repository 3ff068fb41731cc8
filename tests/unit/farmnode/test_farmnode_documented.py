"""What docs/last-words.md promises is what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

from farmnode_fakes import NODE, Bench

from farmnode.boot import _PHASES, Boot
from farmnode.errors import REASONS

TEXT = (Path(__file__).parents[3] / "docs" / "last-words.md").read_text("utf-8")


def test_every_code_is_documented() -> None:
    assert dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|$", TEXT, re.MULTILINE)) == REASONS


def test_every_key_and_phase_is_documented(bench: Bench) -> None:
    event = Boot(bench.machine).run()
    documented = set(re.findall(r"^\| `(\w+)` \| (?:text|number) \|", TEXT, re.MULTILINE))
    assert set(event) <= documented
    for phase in {"metadata", "role"}.union(*_PHASES.values()):
        assert f"`{phase}`" in TEXT


def test_the_examples_have_the_keys_of_the_table() -> None:
    examples = [json.loads(line) for line in re.findall(r"^RENDERFARM-NODE (\{.*\})$", TEXT, re.MULTILINE)]
    documented = re.findall(r"^\| `(\w+)` \| (?:text|number) \|", TEXT, re.MULTILINE)
    assert set(examples[0]) | {"phase", "code", "reason"} == set(examples[1]) == set(documented)
    assert examples[0]["name"] == NODE.name
