"""Windows command lines: one string that each program splits for itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping


def split(line: str) -> list[str]:
    """Split a command line as ``CommandLineToArgvW`` does (first word: the program, whose quotes nest nothing).

    Reference: Microsoft, "Parsing C++ command-line arguments" and CommandLineToArgvW.
    """
    line = line.strip(" \t")
    if not line:
        return []
    if line.startswith('"'):
        end = line.find('"', 1)
        end = len(line) if end < 0 else end
        return [line[1:end], *_arguments(line[end + 1 :])]
    program, _, rest = line.partition(" ")
    return [program, *_arguments(rest)]


def _arguments(text: str) -> list[str]:
    arguments: list[str] = []
    current: list[str] = []
    started = quoted = False
    index = 0
    while index < len(text):
        character = text[index]
        if character == "\\":
            run = len(text) - index - len(text[index:].lstrip("\\"))
            index += run
            if index < len(text) and text[index] == '"':
                current.append("\\" * (run // 2))
                if run % 2:
                    current.append('"')
                    index += 1
            else:
                current.append("\\" * run)
            started = True
            continue
        if character == '"':
            if quoted and text[index + 1 : index + 2] == '"':
                current.append('"')
                index += 1
            else:
                quoted = not quoted
            started = True
        elif character in " \t" and not quoted:
            if started:
                arguments.append("".join(current))
                current, started = [], False
        else:
            current.append(character)
            started = True
        index += 1
    if started:
        arguments.append("".join(current))
    return arguments


def quote(argument: str) -> str:
    """Quote one argument so that ``split`` gives it back (the rules of ConvertTo-EscapedArgument of Ansible)."""
    if not argument:
        return '""'
    if not re.search(r'[\s"]', argument):
        return argument
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', argument)
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped)
    return f'"{escaped}"'


def join(arguments: Iterable[str]) -> str:
    """One command line of several arguments."""
    return " ".join(quote(argument) for argument in arguments)


def expand(text: str, environment: Mapping[str, str]) -> str:
    """Replace ``%NAME%`` by the environment's value; an unknown name stays as it is (ExpandEnvironmentStrings)."""
    values = {name.upper(): value for name, value in environment.items()}
    return re.sub(r"%([^%]+)%", lambda match: values.get(match[1].upper(), match[0]), text)
