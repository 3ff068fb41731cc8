"""Runs the statements of a script on a host."""

from __future__ import annotations

import base64
import fnmatch
import json
import re
from typing import TYPE_CHECKING, Any

from rehearsal.interfaces import Outcome
from rehearsal.windows.errors import NoStandIn, WindowsError
from rehearsal.windows.powershell import syntax
from rehearsal.windows.powershell.cmdlets import CMDLETS, Cmdlet, Context, bind
from rehearsal.windows.powershell.values import PsError, PsObject, lookup, text

if TYPE_CHECKING:
    from rehearsal.windows.host import WindowsHost

# What ansible.windows appends to each of its raw texts (plugins/plugin_utils/_reboot.py): hand on the exit code.
_EXIT_CODE = re.compile(
    r";\s*If \(-not \$\?\) \{ If \(Get-Variable LASTEXITCODE -ErrorAction SilentlyContinue\) "
    r"\{ exit \$LASTEXITCODE \} Else \{ exit 1 \} \}\s*$",
    re.IGNORECASE,
)
# The text with which ansible.windows.win_reboot starts a reboot (the same file).
_REBOOT = re.compile(
    r"^\$ErrorActionPreference = 'Continue'\s+if \(\$(?P<logon>True|False)\) \{\s+"
    r"Remove-Item -LiteralPath '(?P<key>[^']+)' -Force -ErrorAction SilentlyContinue\s+\}\s+\$stdout = \$null\s+"
    r"\$stderr = \. \{ C:\\Windows\\System32\\shutdown\.exe /r /t (?P<delay>\d+) /c (?P<message>'(?:[^']|'')*') "
    r"\| Set-Variable stdout \} 2>&1 \| ForEach-Object ToString\s+"
    r"If \(Get-Variable LASTEXITCODE -ErrorAction SilentlyContinue\) \{\s+\$rc = \$LASTEXITCODE\s+\} Else \{\s+"
    r"\$rc=1\s+\}\s+ConvertTo-Json -Compress -InputObject @\{\s+stdout = \(@\(\$stdout\) -join \"`n\"\)\s+"
    r"stderr = \(@\(\$stderr\) -join \"`n\"\)\s+rc = \$rc\s+\}\s*$",
    re.IGNORECASE,
)


async def run(host: WindowsHost, script: str, user: str, stdin: bytes = b"") -> Outcome:
    """Run a script, which may read lines of ``stdin``.

    What is not understood fails with a text that quotes the statement; nothing raises.
    """
    script = _EXIT_CODE.sub("", script)
    reboot = _REBOOT.match(script.strip())
    if reboot is not None:
        return await _reboot(host, reboot)
    interpreter = _Interpreter(host, user, stdin)
    try:
        statements = syntax.parse(script)
        for statement in statements:
            await interpreter.execute(statement)
    except syntax.SyntaxUnknown as error:
        return _failure(host, interpreter, f"rehearsal: the PowerShell statement is not modelled: {error}")
    except (PsError, WindowsError, NoStandIn) as error:
        return _failure(host, interpreter, str(error))
    stdout = "".join(f"{line}\r\n" for line in interpreter.output)
    stderr = "".join(f"{line}\r\n" for line in interpreter.errors)
    return Outcome(0 if interpreter.succeeded else interpreter.last_exit_code or 1, stdout.encode(), stderr.encode())


def _failure(host: WindowsHost, interpreter: _Interpreter, message: str) -> Outcome:
    host.log(f"PowerShell: {message}")
    stdout = "".join(f"{line}\r\n" for line in interpreter.output)
    stderr = "".join(f"{line}\r\n" for line in [*interpreter.errors, message])
    return Outcome(1, stdout.encode(), stderr.encode())


async def _reboot(host: WindowsHost, match: re.Match[str]) -> Outcome:
    if match["logon"].lower() == "true":
        host.registry.delete(match["key"])
    message = match["message"][1:-1].replace("''", "'")
    outcome = await host.run([r"C:\Windows\System32\shutdown.exe", "/r", "/t", match["delay"], "/c", message])
    answer = {
        "stdout": outcome.stdout.decode().strip(),
        "stderr": outcome.stderr.decode().strip(),
        "rc": outcome.rc,
    }
    return Outcome(0, json.dumps(answer, separators=(",", ":")).encode() + b"\r\n")


class _Interpreter:
    def __init__(self, host: WindowsHost, user: str, stdin: bytes) -> None:
        self.host = host
        self._lines = iter(stdin.decode("utf-8").splitlines())
        self.user = user
        self.variables: dict[str, Any] = {"erroractionpreference": "Continue"}
        self.output: list[str] = []
        self.errors: list[str] = []
        self.succeeded = True
        self.last_exit_code = 0

    async def execute(self, statement: syntax.Statement) -> None:
        try:
            node = statement.node
            if isinstance(node, syntax.Assignment):
                value = await self.evaluate(node.value)
                if node.name.lower() == "erroractionpreference" and value not in ("Stop", "Continue"):
                    raise PsError(f"rehearsal: $ErrorActionPreference = '{value}' is not modelled")
                self.variables[node.name.lower()] = value
            else:
                result = await self.evaluate(node)
                for item in result if isinstance(result, list) else [result]:
                    if item is not None:
                        self.output.append(text(item))
        except (PsError, WindowsError, NoStandIn) as error:
            raise PsError(f"{error}\r\nAt: {statement.source}") from error

    # ------------------------------------------------------------------------------------------------------ evaluation

    async def evaluate(self, node: syntax.Node, item: Any = None) -> Any:
        """The value of a node; ``item`` is ``$_``."""
        match node:
            case syntax.Literal(value):
                return value
            case syntax.Text(parts):
                return "".join([text(await self.evaluate(part, item)) for part in parts])
            case syntax.Variable(name):
                return self.variable(name, item)
            case syntax.Member(target, name):
                return self.member(await self.evaluate(target, item), name)
            case syntax.Call(target, name, arguments):
                owner = await self.evaluate(target, item)
                values = [await self.evaluate(argument, item) for argument in arguments]
                if isinstance(owner, PsObject):
                    return owner.call(name, values)
                raise PsError(f"rehearsal: the method {name} of {type(owner).__name__} is not modelled")
            case syntax.Static(type_name, name, arguments):
                values = [await self.evaluate(argument, item) for argument in arguments or ()]
                return self.static(type_name, name, values)
            case syntax.HashTable(pairs):
                return {text(await self.evaluate(key, item)): await self.evaluate(value, item) for key, value in pairs}
            case syntax.Array(items):
                return [await self.evaluate(entry, item) for entry in items]
            case syntax.Block():
                return node
            case syntax.Not(operand):
                return not await self.evaluate(operand, item)
            case syntax.Binary(operator, left, right):
                return await self.compare(operator, left, right, item)
            case syntax.Command():
                return await self.pipeline((node,), item)
            case syntax.Pipeline(stages):
                return await self.pipeline(stages, item)
        raise PsError(f"rehearsal: {type(node).__name__} cannot stand here")

    def variable(self, name: str, item: Any) -> Any:
        lowered = name.lower()
        if lowered == "_":
            return item
        if lowered.startswith("env:"):
            return lookup(self.host.environment(self.user), name[4:])
        if lowered not in self.variables:
            raise PsError(f"rehearsal: the variable ${name} is not set (PowerShell would go on with null)")
        return self.variables[lowered]

    @staticmethod
    def member(owner: Any, name: str) -> Any:
        if isinstance(owner, PsObject):
            return owner.get(name)
        if isinstance(owner, dict):
            return lookup(owner, name)
        if isinstance(owner, list) and all(isinstance(entry, PsObject) for entry in owner):
            return [entry.get(name) for entry in owner]  # about_Member-Access_Enumeration
        if isinstance(owner, (str, list, bytes)) and name.lower() in ("length", "count"):
            return len(owner)
        raise PsError(f"rehearsal: the property {name} of {type(owner).__name__} is not modelled")

    def static(self, type_name: str, name: str, values: list[Any]) -> Any:
        known = type_name.lower().removeprefix("system.")
        if (known, name.lower()) == ("convert", "tobase64string") and len(values) == 1:
            if not isinstance(values[0], bytes):
                raise PsError('Cannot convert argument "inArray" to type "System.Byte[]".')
            return base64.b64encode(values[0]).decode()
        if (known, name.lower()) == ("console", "in") and not values:
            return PsObject("System.IO.TextReader", {}, {"ReadLine": lambda: next(self._lines, None)})
        raise PsError(f"rehearsal: [{type_name}]::{name} is not modelled")

    async def compare(self, operator: str, left: syntax.Node, right: syntax.Node, item: Any) -> bool:
        first = await self.evaluate(left, item)
        if operator == "and":
            return bool(first) and bool(await self.evaluate(right, item))
        if operator == "or":
            return bool(first) or bool(await self.evaluate(right, item))
        second = await self.evaluate(right, item)
        if operator in ("contains", "notcontains"):
            items = first if isinstance(first, list) else [first]
            found = any(_equal(entry, second) for entry in items)
            return found if operator == "contains" else not found
        if operator in ("eq", "ne"):
            return _equal(first, second) == (operator == "eq")
        if operator == "like":
            return fnmatch.fnmatchcase(text(first).lower(), text(second).lower())
        return re.search(text(second), text(first), re.IGNORECASE) is not None

    async def pipeline(self, stages: tuple[syntax.Node, ...], item: Any) -> Any:
        flow: list[Any] = []
        for position, stage in enumerate(stages):
            if isinstance(stage, syntax.Command):
                flow = await self.command(stage, flow, item, first=position == 0)
            else:
                value = await self.evaluate(stage, item)
                flow = value if isinstance(value, list) else [] if value is None else [value]
        if not flow:
            return None
        return flow[0] if len(flow) == 1 else flow

    async def command(self, node: syntax.Command, flow: list[Any], item: Any, *, first: bool) -> list[Any]:
        cmdlet = CMDLETS.get(node.name.lower())
        if cmdlet is None:
            return await self.program(node, flow, item)
        arguments: list[Any] = []
        for argument in node.arguments:
            if isinstance(argument, syntax.Parameter):
                value = None if argument.value is None else await self.evaluate(argument.value, item)
                arguments.append(syntax.Parameter(argument.name, None if value is None else syntax.Literal(value)))
            else:
                arguments.append(await self.evaluate(argument, item))
        values = bind(cmdlet, arguments)
        action = str(values.pop("ErrorAction", self.variables["erroractionpreference"]))
        try:
            result = await self._invoke(cmdlet, values, flow, first=first)
        except (PsError, WindowsError) as error:
            message = f"{cmdlet.name} : {error}"
            if action.lower() in ("silentlycontinue", "ignore"):
                self.succeeded = action.lower() == "ignore"
                return []
            if action.lower() != "continue":
                raise PsError(message) from error
            self.errors.append(message)
            self.succeeded = False
            return []
        self.succeeded = True
        return result

    async def _invoke(self, cmdlet: Cmdlet, values: dict[str, Any], flow: list[Any], *, first: bool) -> list[Any]:
        if not first and not cmdlet.takes_pipeline:
            raise PsError("rehearsal: it takes nothing from a pipeline here")

        async def test(block: syntax.Block, entry: Any) -> bool:
            return bool(await self.evaluate(block.body, entry))

        result = await cmdlet.function(Context(self.host, self.user, flow, test), values)
        return result if isinstance(result, list) else [] if result is None else [result]

    async def program(self, node: syntax.Command, flow: list[Any], item: Any) -> list[Any]:
        """Run a program of the host; its output comes line by line."""
        words = [node.name]
        for argument in node.arguments:
            if isinstance(argument, syntax.Parameter):
                words.append(f"-{argument.name}")
            else:
                words.append(text(await self.evaluate(argument, item)))
        if flow:
            raise PsError(f"rehearsal: input of {node.name} from a pipeline is not modelled")
        try:
            outcome = await self.host.run(words, user=self.user, cwd=self.host.home(self.user))
        except WindowsError as error:
            if error.code != 2:
                raise
            known = ", ".join(sorted(cmdlet.name for cmdlet in CMDLETS.values()))
            raise PsError(
                f"The term '{node.name}' is not recognized as the name of a cmdlet, function, script file, or operable "
                f"program. (rehearsal: the cmdlets that it knows are {known})"
            ) from error
        self.last_exit_code = outcome.rc
        self.succeeded = outcome.rc == 0
        self.errors += outcome.stderr.decode(errors="replace").splitlines()
        return list(outcome.stdout.decode(errors="replace").splitlines())


def _equal(first: Any, second: Any) -> bool:
    """PowerShell's -eq: without regard to case, the right side turned into the type of the left."""
    if isinstance(first, str) or isinstance(second, str):
        return text(first).lower() == text(second).lower()
    return bool(first == second)
