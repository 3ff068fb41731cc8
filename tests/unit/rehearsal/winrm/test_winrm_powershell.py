"""Literals of PowerShell."""

from __future__ import annotations

from typing import Any

import pytest

from rehearsal.winrm.powershell import LiteralReader, PowerShellSyntaxError, Unevaluated


def value(text: str) -> Any:
    return LiteralReader(f"{text}\n").variable("v")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$v = 'it''s'", "it's"),
        ('$v = "a`tb"', "a\tb"),
        ("$v = -5", -5),
        ("$v = 1.5", 1.5),
        ("$v = $TRUE", True),
        ("$v = 'a', 'b'", ["a", "b"]),
        ("$v = 'a',\n  'b'", ["a", "b"]),
        ("$v = @('a', 'b') + 'c'", ["a", "b", "c"]),
        ("$v = @(\n 'a'\n 'b' # why\n)", ["a", "b"]),
        ("$v = @(,@('a', 'b'))", [["a", "b"]]),
        ("$v = @(@('a', 1), @('b', 2))", [["a", 1], ["b", 2]]),
        ("$v = @()", []),
        ("$v = @{ a = 1; 'b c' = @{ d = $null } }", {"a": 1, "b c": {"d": None}}),
        ("$v = [string[]]@('a')", ["a"]),
        ("$v = ('a')", "a"),
        ("$w = @{ x = 1; y = 2 }\n$v = $w.Keys + 'z'", ["x", "y", "z"]),
        ("$w = @{ Inner = @{ x = 1 } }\n$v = $w.inner", {"x": 1}),
        ("$v = @{ <# long\n#> a = 'x' }", {"a": "x"}),
    ],
)
def test_literals(text: str, expected: Any) -> None:
    assert value(text) == expected
    assert not isinstance(value(text), Unevaluated)


@pytest.mark.parametrize(
    "text",
    [
        "$v = Get-Thing -Name x",
        "$v = [Func[[Object], [UInt32]]]{ [UInt32]$args[0] }",
        "$v = $unknown",
        '$v = "with $variable"',
        "$v = 'a' -split ','",
        "$v = ([Enum]).GetValues() | ForEach-Object { $_ }",
        "$v = 1\n$v = 2",
        "$v = $v",
        "$v = @{ a }",
    ],
)
def test_what_is_no_literal_is_marked(text: str) -> None:
    assert isinstance(value(text), Unevaluated)


def test_an_expression_inside_a_table_does_not_hide_the_rest() -> None:
    table = value("$v = @{\n a = Get-Thing { x; y }\n b = 'c'\n}")
    assert isinstance(table["a"], Unevaluated)
    assert table["b"] == "c"


def test_broken_table_names_its_line() -> None:
    script = "$v = @{\n a = \n}"
    with pytest.raises(PowerShellSyntaxError, match=r"line 3: expected a value, found '}'"):
        LiteralReader(script).hashtable(7)
