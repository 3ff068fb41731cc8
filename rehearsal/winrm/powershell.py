"""Just enough of PowerShell's grammar to read literal data: hashtables, arrays, strings, numbers, ``+``.

What is not a literal (a script block, a command, a variable without one plain assignment) becomes
:class:`Unevaluated`, so that a caller can tell "not known" from a value.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple


class PowerShellSyntaxError(Exception):
    """A text is not the literal that was expected."""


class Unevaluated(str):
    """The source text of an expression that only PowerShell could evaluate."""

    __slots__ = ()


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


_TOKEN: Final = re.compile(
    r"""
    (?P<space>(?:[ \t\r]|`\r?\n)+) | (?P<comment><\#.*?\#>|\#[^\n]*) | (?P<newline>\n)
    | (?P<open>@\{|@\(|\$\(|[({\[]) | (?P<close>[)}\]]) | (?P<punctuation>[,;=|])
    | (?P<here>@'\r?\n.*?\n'@|@"\r?\n.*?\n"@) | (?P<single>'(?:[^']|'')*') | (?P<double>"(?:[^"`]|`.|"")*")
    | (?P<number>[-+]?\d+(?:\.\d+)?(?![\w.])) | (?P<variable>\$\w+(?::\w+)?|\$\{[^}]*\}|\$[_?^$])
    | (?P<member>\.\w+) | (?P<plus>\+) | (?P<word>[^\s'"(){}\[\],;=|]+)
    """,
    re.VERBOSE | re.DOTALL,
)
_CLOSING: Final = {"(": ")", "@(": ")", "$(": ")", "{": "}", "@{": "}", "[": "]"}
_CONSTANTS: Final[dict[str, Any]] = {"$true": True, "$false": False, "$null": None}
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "0": "\0"}
_MAXIMUM_DEPTH: Final = 8


class LiteralReader:
    """Reads literals out of one script."""

    def __init__(self, script: str) -> None:
        self._script = script

    def hashtable(self, position: int) -> dict[str, Any]:
        """Read the hashtable literal whose ``@{`` ends just before ``position``.

        :raises PowerShellSyntaxError: when the text does not read as a hashtable.
        """
        return _Parser(self._script, position, 0).hashtable()

    def variable(self, name: str) -> Any:
        """Return the value of a variable that the script assigns exactly once."""
        return _variable(self._script, f"${name}", 0)


def _variable(script: str, name: str, depth: int) -> Any:
    if name.lower() in _CONSTANTS:
        return _CONSTANTS[name.lower()]
    found = list(re.finditer(rf"(?im)^[ \t]*{re.escape(name)}\s*=(?!=)", script))
    if len(found) != 1 or depth >= _MAXIMUM_DEPTH:
        return Unevaluated(name)
    try:
        return _Parser(script, found[0].end(), depth + 1).value()
    except PowerShellSyntaxError:
        return Unevaluated(name)


class _Parser:
    """A recursive descent over the tokens from ``position`` on, read as far as they are needed."""

    def __init__(self, script: str, position: int, depth: int) -> None:
        self._script = script
        self._position = position
        self._depth = depth
        self._next: _Token | None = None

    def _peek(self) -> _Token:
        while self._next is None:
            match = _TOKEN.match(self._script, self._position)
            if match is None:
                self._next = _Token("end", "", self._position)
                break
            self._position = match.end()
            if match.lastgroup not in ("space", "comment"):
                self._next = _Token(match.lastgroup or "", match.group(), match.start())
        return self._next

    def _take(self) -> _Token:
        token = self._peek()
        self._next = None
        return token

    def _skip(self, *texts: str) -> None:
        while self._peek().text in texts and self._peek().kind != "end":
            self._take()

    def _fail(self, token: _Token, expected: str) -> PowerShellSyntaxError:
        line = self._script.count("\n", 0, token.position) + 1
        return PowerShellSyntaxError(f"line {line}: expected {expected}, found {token.text!r}")

    def hashtable(self) -> dict[str, Any]:
        table: dict[str, Any] = {}
        while True:
            self._skip("\n", ";")
            token = self._take()
            if token.text == "}":
                return table
            if token.kind not in ("word", "single", "double", "number"):
                raise self._fail(token, "a key")
            key = _unquote(token)
            self._skip("\n")
            if (sign := self._take()).text != "=":
                raise self._fail(sign, "=")
            self._skip("\n")
            table[key] = self.value()

    def value(self) -> Any:
        """A list by commas, or one item; what follows it on the line makes it unevaluated."""
        start = self._peek().position
        items: list[Any] = []
        comma = False
        if self._peek().text == ",":
            self._take()
            comma = True
        while True:
            self._skip("\n") if comma else None
            items.append(self._sum())
            if self._peek().text != ",":
                break
            self._take()
            comma = True
            self._skip("\n")
        if not self._at_end():
            return self._rest(start)
        return items if comma else items[0]

    def _at_end(self) -> bool:
        token = self._peek()
        return token.kind in ("newline", "close", "end") or token.text == ";"

    def _rest(self, start: int) -> Unevaluated:
        """Skip to the end of an expression that is no literal."""
        end = start
        while not self._at_end():
            token = self._take()
            end = token.position + len(token.text)
            if token.kind == "open":
                end = self._block(token)
            elif token.text == "|":
                self._skip("\n")
        return Unevaluated(self._script[start:end].strip())

    def _block(self, opening: _Token) -> int:
        """Skip a bracketed text; returns the position after its closing bracket."""
        closing = [_CLOSING[opening.text]]
        while closing:
            token = self._take()
            if token.kind == "end":
                raise self._fail(token, closing[-1])
            if token.kind == "open":
                closing.append(_CLOSING[token.text])
            elif token.kind == "close" and token.text != closing.pop():
                raise self._fail(token, "a matching bracket")
        return token.position + 1

    def _sum(self) -> Any:
        start = self._peek().position
        value = self._term()
        while self._peek().kind == "plus":
            self._take()
            self._skip("\n")
            other = self._term()
            value = _add(value, other)
            if isinstance(value, Unevaluated):
                value = Unevaluated(self._script[start : self._peek().position].strip())
        return value

    def _term(self) -> Any:
        token = self._take()
        match token.kind:
            case "single":
                return _unquote(token)
            case "double":
                return Unevaluated(token.text) if "$" in token.text else _unquote(token)
            case "number":
                return float(token.text) if "." in token.text else int(token.text)
            case "variable":
                return self._members(_variable(self._script, token.text, self._depth), token.position)
            case "open":
                return self._opened(token)
            case "close" | "newline" | "end" | "punctuation":
                raise self._fail(token, "a value")
        return Unevaluated(token.text)

    def _opened(self, token: _Token) -> Any:
        match token.text:
            case "@{":
                return self._members(self.hashtable(), token.position)
            case "@(":
                return self._array()
            case "(":
                self._skip("\n")
                inner = self.value()
                self._skip("\n")
                if (closing := self._take()).text != ")":
                    raise self._fail(closing, ")")
                return self._members(inner, token.position)
            case "[":
                end = self._block(token)
                if self._peek().kind in ("single", "double", "number", "variable") or self._peek().text in ("@(", "@{"):
                    inner = self._term()
                    plain = not isinstance(inner, Unevaluated)
                    return inner if plain else Unevaluated(self._script[token.position : end] + inner)
                if self._peek().text == "{":
                    end = self._block(self._take())
                return Unevaluated(self._script[token.position : end])
        return Unevaluated(self._script[token.position : self._block(token)])

    def _array(self) -> list[Any]:
        """``@( … )``: statements by newline or semicolon; PowerShell unrolls the list that a statement gives."""
        statements: list[Any] = []
        while True:
            self._skip("\n", ";")
            if self._peek().text == ")":
                self._take()
                break
            value = self.value()
            statements.extend(value if isinstance(value, list) else [value])
        return statements

    def _members(self, value: Any, start: int) -> Any:
        while self._peek().kind == "member":
            name = self._take().text[1:].lower()
            table = {key.lower(): item for key, item in value.items()} if isinstance(value, dict) else {}
            if name in table:
                value = table[name]
            elif name == "keys" and isinstance(value, dict):
                value = list(value)
            else:
                value = Unevaluated(self._script[start : self._peek().position].strip())
        return value


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, Unevaluated) or isinstance(right, Unevaluated):
        return Unevaluated("")
    if isinstance(left, list):
        return [*left, *(right if isinstance(right, list) else [right])]
    if isinstance(left, dict) and isinstance(right, dict):
        return {**left, **right}
    if isinstance(left, str):
        return left + str(right)
    return Unevaluated("")


def _unquote(token: _Token) -> str:
    if token.kind == "single":
        return token.text[1:-1].replace("''", "'")
    if token.kind == "double":
        text = token.text[1:-1].replace('""', '"')
        return re.sub("`(.)", lambda match: _ESCAPES.get(match.group(1), match.group(1)), text, flags=re.DOTALL)
    return token.text
