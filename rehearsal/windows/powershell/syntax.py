"""The statement forms of PowerShell that are understood, and their parser.

These are: assignment to a variable; pipelines of commands with named and positional arguments, or of one expression
and commands; strings with interpolation; numbers; ``@{}`` and ``@()``; ``( )`` around a pipeline; member access and
method calls; ``[Type]::Method()``; in script blocks comparisons.  Anything else is a SyntaxUnknown that quotes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias


class SyntaxUnknown(Exception):
    """A statement that is not understood; the text is the statement."""


@dataclass(frozen=True)
class Literal:
    value: object


@dataclass(frozen=True)
class Text:
    """A string with interpolation: its parts are joined."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Variable:
    name: str


@dataclass(frozen=True)
class Member:
    target: Node
    name: str


@dataclass(frozen=True)
class Call:
    target: Node
    name: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True)
class Type:
    name: str


@dataclass(frozen=True)
class Static:
    """``[Type]::Name`` or, with arguments, ``[Type]::Name(…)``."""

    type: str
    name: str
    arguments: tuple[Node, ...] | None


@dataclass(frozen=True)
class HashTable:
    pairs: tuple[tuple[Node, Node], ...]


@dataclass(frozen=True)
class Array:
    items: tuple[Node, ...]


@dataclass(frozen=True)
class Block:
    """A script block that holds one expression."""

    body: Node


@dataclass(frozen=True)
class Binary:
    operator: str
    left: Node
    right: Node


@dataclass(frozen=True)
class Not:
    operand: Node


@dataclass(frozen=True)
class Parameter:
    """``-Name`` of a command; ``value`` when written as ``-Name:value``."""

    name: str
    value: Node | None = None


@dataclass(frozen=True)
class Command:
    name: str
    arguments: tuple[Node | Parameter, ...] = ()


@dataclass(frozen=True)
class Pipeline:
    stages: tuple[Node, ...]


@dataclass(frozen=True)
class Assignment:
    name: str
    value: Node


Node: TypeAlias = (
    "Literal | Text | Variable | Member | Call | Type | Static | HashTable | Array | Block | Binary | Not | Command"
    " | Pipeline"
)


@dataclass(frozen=True)
class Statement:
    """One statement with its source text (for messages)."""

    source: str
    node: Node | Assignment = field(compare=False)


_NAME = re.compile(r"\w+")
_VARIABLE = re.compile(r"\$(?:\{([^}]+)\}|((?:env:)?\w+|_|\?))", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?![\w.])")
_COMMAND = re.compile(r"[A-Za-z][\w\\:.-]*")
_PARAMETER = re.compile(r"-([A-Za-z]\w*)(:?)")
_TYPE = re.compile(r"\[([A-Za-z][\w.]*)\]")
_BAREWORD = re.compile(r"[^\s|;(){}'\"`,&<>$@]+")
_COMPARISON = re.compile(r"-(contains|notcontains|eq|ne|like|match)\b", re.IGNORECASE)
_LOGICAL = re.compile(r"-(and|or)\b", re.IGNORECASE)
_KEYWORDS = frozenset(
    [
        "if",
        "else",
        "elseif",
        "for",
        "foreach",
        "while",
        "do",
        "switch",
        "function",
        "param",
        "try",
        "catch",
        "finally",
        "return",
        "exit",
        "throw",
        "trap",
        "begin",
        "process",
        "end",
        "break",
        "continue",
        "filter",
        "class",
        "using",
        "data",
    ]
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def parse(text: str) -> list[Statement]:
    """The statements of a script; SyntaxUnknown for the first that is not understood."""
    return _Parser(text.replace("\r\n", "\n")).script()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.start = 0

    def script(self) -> list[Statement]:
        statements = []
        self.skip(lines=True)
        while self.position < len(self.text):
            self.start = self.position
            node = self.statement()
            self.skip()
            if self.position < len(self.text) and self.text[self.position] not in "\n;":
                raise self.unknown()
            statements.append(Statement(self.text[self.start : self.position].strip(), node))
            self.skip(lines=True)
        return statements

    def unknown(self) -> SyntaxUnknown:
        end = self.text.find("\n", self.position)
        return SyntaxUnknown(self.text[self.start : end if end >= 0 else len(self.text)].strip())

    # -------------------------------------------------------------------------------------------------------- scanning

    def skip(self, lines: bool = False) -> None:
        """Skip blanks, comments and continued lines; with ``lines`` also ends of lines and semicolons."""
        while self.position < len(self.text):
            rest = self.text[self.position :]
            if rest[0] in " \t" or (lines and rest[0] in "\n;"):
                self.position += 1
            elif rest.startswith("`\n"):
                self.position += 2
            elif rest.startswith("<#"):
                end = rest.find("#>")
                if end < 0:
                    raise self.unknown()
                self.position += end + 2
            elif rest[0] == "#":
                end = rest.find("\n")
                self.position += len(rest) if end < 0 else end
            else:
                return

    def peek(self, text: str) -> bool:
        return self.text.startswith(text, self.position)

    def take(self, text: str) -> bool:
        if self.peek(text):
            self.position += len(text)
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.take(text):
            raise self.unknown()

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self.text, self.position)
        if match is not None:
            self.position = match.end()
        return match

    # ------------------------------------------------------------------------------------------------------ statements

    def statement(self) -> Node | Assignment:
        match = re.compile(r"\$(\w+)[ \t]*=(?!=)").match(self.text, self.position)
        if match is not None:
            self.position = match.end()
            self.skip()
            return Assignment(match[1], self.pipeline())
        return self.pipeline()

    def pipeline(self) -> Node:
        stages = [self.stage()]
        while True:
            self.skip()
            if not self.take("|"):
                break
            self.skip(lines=True)
            stages.append(self.stage())
        return stages[0] if len(stages) == 1 and not isinstance(stages[0], Command) else Pipeline(tuple(stages))

    def stage(self) -> Node:
        self.skip()
        match = _COMMAND.match(self.text, self.position)
        if match is None:
            return self.expression()
        if match[0].lower() in _KEYWORDS:
            raise self.unknown()
        self.position = match.end()
        return Command(match[0], self.arguments())

    def arguments(self) -> tuple[Node | Parameter, ...]:
        found: list[Node | Parameter] = []
        while True:
            self.skip()
            if self.position >= len(self.text) or self.text[self.position] in "\n;|)}":
                return tuple(found)
            match = self.match(_PARAMETER)
            if match is not None:
                found.append(Parameter(match[1], self.argument() if match[2] else None))
            else:
                found.append(self.argument())

    def argument(self) -> Node:
        items = [self.operand()]
        while True:
            self.skip()
            if not self.take(","):
                break
            self.skip(lines=True)
            items.append(self.operand())
        return items[0] if len(items) == 1 else Array(tuple(items))

    def operand(self) -> Node:
        """One argument: a value, or a bare word that is a string."""
        number = self.match(_NUMBER)
        if number is not None:
            return Literal(int(number[0]))
        if self.position < len(self.text) and self.text[self.position] in "'\"$@({[":
            return self.value()
        word = self.match(_BAREWORD)
        if word is None:
            raise self.unknown()
        return Literal(word[0])

    # ----------------------------------------------------------------------------------------------------- expressions

    def expression(self) -> Node:
        """Comparisons joined by -and and -or, which have one precedence and group from the left."""
        return self.binary(_LOGICAL, lambda: self.binary(_COMPARISON, self.unary))

    def binary(self, operators: re.Pattern[str], operand: Callable[[], Node]) -> Node:
        left = operand()
        while True:
            self.skip()
            match = self.match(operators)
            if match is None:
                return left
            left = Binary(match[1].lower(), left, operand())

    def unary(self) -> Node:
        self.skip()
        if self.take("-not ") or self.take("!"):
            return Not(self.unary())
        number = self.match(_NUMBER)
        if number is not None:
            return Literal(int(number[0]))
        return self.value()

    def value(self) -> Node:
        node = self.primary()
        while True:
            if self.peek(".") and re.compile(r"\.\w").match(self.text, self.position):
                self.position += 1
                name = self.match(_NAME)
                assert name is not None
                node = Call(node, name[0], self.call()) if self.peek("(") else Member(node, name[0])
            elif isinstance(node, Type):
                raise self.unknown()
            else:
                return node

    def primary(self) -> Node:
        if self.peek("'"):
            return self.quoted()
        if self.peek('"'):
            return self.interpolated()
        if self.take("@{"):
            return self.table()
        if self.take("@("):
            return Array(tuple(self.items(")")))
        if self.take("("):
            self.skip(lines=True)
            node = self.pipeline()
            self.skip(lines=True)
            self.expect(")")
            return node
        if self.take("{"):
            self.skip(lines=True)
            node = self.expression()
            self.skip(lines=True)
            self.expect("}")
            return Block(node)
        match = self.match(_TYPE)
        if match is not None:
            self.expect("::")
            name = self.match(_NAME)
            if name is None:
                raise self.unknown()
            return Static(match[1], name[0], self.call() if self.peek("(") else None)
        match = self.match(_VARIABLE)
        if match is not None:
            name_text = match[1] or match[2]
            constants = {"true": True, "false": False, "null": None}
            if name_text.lower() in constants:
                return Literal(constants[name_text.lower()])
            return Variable(name_text)
        raise self.unknown()

    def call(self) -> tuple[Node, ...]:
        self.expect("(")
        return tuple(self.items(")"))

    def items(self, end: str) -> list[Node]:
        items: list[Node] = []
        self.skip(lines=True)
        while not self.take(end):
            items.append(self.expression())
            self.skip(lines=True)
            if self.take(","):
                self.skip(lines=True)
            elif not self.peek(end):
                raise self.unknown()
        return items

    def table(self) -> Node:
        pairs = []
        self.skip(lines=True)
        while not self.take("}"):
            key: Node
            if self.position < len(self.text) and self.text[self.position] in "'\"":
                key = self.primary()
            else:
                name = self.match(_NAME)
                if name is None:
                    raise self.unknown()
                key = Literal(name[0])
            self.skip()
            self.expect("=")
            self.skip()
            pairs.append((key, self.expression()))
            self.skip()
            if not self.peek("}") and self.position < len(self.text) and self.text[self.position] not in ";\n":
                raise self.unknown()
            self.skip(lines=True)
        return HashTable(tuple(pairs))

    def quoted(self) -> Node:
        end = self.position + 1
        while True:
            end = self.text.find("'", end)
            if end < 0:
                raise self.unknown()
            if self.text.startswith("''", end):
                end += 2
                continue
            text = self.text[self.position + 1 : end].replace("''", "'")
            self.position = end + 1
            return Literal(text)

    def interpolated(self) -> Node:
        self.expect('"')
        parts: list[Node] = []
        current = ""
        while True:
            if self.position >= len(self.text):
                raise self.unknown()
            if self.take('""'):
                current += '"'
            elif self.take('"'):
                break
            elif self.take("`"):
                character = self.text[self.position : self.position + 1]
                current += _ESCAPES.get(character, character)
                self.position += 1
            elif self.take("$("):
                parts += [Literal(current), self.pipeline()]
                current = ""
                self.skip(lines=True)
                self.expect(")")
            elif self.peek("$") and (match := self.match(_VARIABLE)) is not None:
                parts += [Literal(current), Variable(match[1] or match[2])]
                current = ""
            else:
                current += self.text[self.position]
                self.position += 1
        parts.append(Literal(current))
        return Text(tuple(parts)) if len(parts) > 1 else parts[0]
