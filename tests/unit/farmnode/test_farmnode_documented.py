"""What docs/last-words.md promises is what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
from farmnode_fakes import LAST_WORDS, NODE, Bench

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
    for example in examples:
        LAST_WORDS.validate(example)


def test_the_schema_and_the_table_have_the_same_keys() -> None:
    jsonschema.Draft202012Validator.check_schema(LAST_WORDS.schema)
    documented = re.findall(r"^\| `(\w+)` \| (?:text|number) \|", TEXT, re.MULTILINE)
    assert set(LAST_WORDS.schema["properties"]) == set(documented)


@pytest.mark.parametrize(
    "change",
    [
        {"event": "Ready"},
        {"event": "waiting"},
        {"event": "failed", "reason": "x", "phase": "role"},
        {"version": 2},
        {"time": "2026-10-14T09:00:07Z"},
        {"instance": ""},
        {"role": "king"},
        {"mac": "06:AA:BB:CC:DD:EE"},
        {"seconds": "1"},
        {"reason": "all is well"},
        {"more": 1},
    ],
)
def test_the_schema_refuses_what_is_not_documented(change: dict[str, object]) -> None:
    ready = json.loads(re.findall(r"^RENDERFARM-NODE (\{.*\})$", TEXT, re.MULTILINE)[0])
    assert LAST_WORDS.is_valid(ready)
    assert not LAST_WORDS.is_valid(ready | change)
