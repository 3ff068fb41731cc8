"""What ansible-core sends to a Windows host, decoded into a :class:`~rehearsal.interfaces.Request`.

The formats are those of ansible-core 2.19, 2.20 and 2.21 (``ansible/executor/powershell/module_manifest.py`` and
``ansible/plugins/connection/winrm.py``).  A text that is not fully understood is an error: a guess would make the
rehearsal answer something that a real host would not.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from rehearsal.interfaces import RehearsalError, Request

SEPARATOR: Final = "\n\0\0\0\0\n"
SUPPORTED: Final = "2.19 to 2.21"

_BUILT_IN: Final[Mapping[str, tuple[str, frozenset[str]]]] = {
    "winrm_put_file.ps1": ("put_file", frozenset({"Path"})),
    "winrm_fetch_file.ps1": ("fetch_file", frozenset({"Path", "BufferSize", "Offset"})),
    "powershell_mkdtemp.ps1": ("mkdtemp", frozenset({"Directory", "Name"})),
    "powershell_expand_user.ps1": ("expand_user", frozenset({"Path"})),
}
_MODULE_FOLDER: Final = re.compile(r"^ansible_collections\.(\w+)\.(\w+)\.plugins\.modules\.([\w.]+)$")
_BOOTSTRAP_MARK: Final = '"`0`0`0`0"'
_BOOTSTRAP_PARAMETERS: Final = frozenset({"MinOSVersion", "MinPSVersion", "TempPath", "PwshPath"})
_MODULE_KEYS: Final = frozenset(
    {"Script", "Environment", "Variables", "CSharpModules", "PowerShellModules", "ForModule"}
)
_INTERNAL: Final = frozenset(
    {
        "check_mode",
        "debug",
        "diff",
        "ignore_unknown_opts",
        "inject_invocation",
        "keep_remote_files",
        "module_name",
        "no_log",
        "remote_tmp",
        "selinux_special_fs",
        "shell_executable",
        "socket",
        "syslog_facility",
        "target_log_info",
        "tmpdir",
        "tracebacks_for",
        "verbosity",
        "version",
    }
)
_STRICT_PREFIX: Final = "Set-StrictMode -Version Latest\n"
_EXIT_SUFFIX: Final = (
    "\nIf (-not $?) { If (Get-Variable LASTEXITCODE -ErrorAction SilentlyContinue) { exit $LASTEXITCODE }"
    " Else { exit 1 } }"
)


class Secret(str):
    """A text that does not show itself in logs, tracebacks and formatted strings; it compares as its real value."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'********'"

    def __str__(self) -> str:
        return "********"

    def __format__(self, specification: str) -> str:
        return format("********", specification)


def decode(command_line: str, stdin: bytes) -> Request:
    """Decode one WinRM command.

    :param command_line: what ``Command`` and ``Arguments`` of the WS-Management message say, joined by spaces.
    :param stdin: everything that was sent to the command's standard input.
    :raises RehearsalError: for everything that is not fully understood.
    """
    try:
        text = stdin.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RehearsalError(f"standard input of a WinRM command is not UTF-8: {error}") from None
    script = encoded_command(command_line)
    if script is None:
        return Request("command", script=command_line, stdin=text)
    if _BOOTSTRAP_MARK in script:
        return _decode_bootstrap(text.replace("\r\n", "\n"))
    return Request("powershell", script=_bare(script), stdin=text)


def encoded_command(command_line: str) -> str | None:
    """Return the PowerShell text of a command line, or None when it starts another program.

    :raises RehearsalError: for a PowerShell option that is not modelled.
    """
    if " | powershell" in command_line.lower() and command_line.lower().startswith("type "):
        raise RehearsalError(
            "a module was run from a file on the host (ANSIBLE_KEEP_REMOTE_FILES=1): the rehearsal models pipelining"
            " only; unset ANSIBLE_KEEP_REMOTE_FILES"
        )
    program, _, rest = command_line.strip().partition(" ")
    if program.strip('"').rsplit("\\", 1)[-1].lower() not in ("powershell", "powershell.exe"):
        return None
    words = iter(rest.split())
    for word in words:
        match word.lower():
            case "-noprofile" | "-noninteractive" | "-nologo":
                continue
            case "-executionpolicy" | "-inputformat" | "-outputformat":
                next(words, None)
            case "-encodedcommand":
                script = _utf16(next(words, ""))
                if remaining := list(words):
                    raise RehearsalError(
                        f"PowerShell was started with {remaining[0]!r} after -EncodedCommand: not modelled"
                        " (ANSIBLE_KEEP_REMOTE_FILES=1 does that; unset it)"
                    )
                return script
            case "-command":
                return rest[rest.lower().index("-command") + len("-command") :].strip().strip('"')
            case _:
                raise RehearsalError(f"PowerShell was started with an option that is not modelled: {word!r}")
    raise RehearsalError("PowerShell was started without -EncodedCommand or -Command: an interactive host hangs there")


def put_file_content(request: Request) -> bytes:
    """Return the bytes that a ``put_file`` request carries."""
    return b"".join(_base64(line, "a line of a file to put") for line in request.data.splitlines())


def _base64(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RehearsalError(f"{what} is not base64: {error}") from None


def _utf16(text: str) -> str:
    raw = _base64(text.strip('"'), "-EncodedCommand")
    try:
        script = raw.decode("utf-16-le")
    except UnicodeDecodeError as error:
        raise RehearsalError(f"-EncodedCommand is not UTF-16: {error}") from None
    if not script.strip():
        raise RehearsalError("-EncodedCommand carries no script")
    return script


def _bare(script: str) -> str:
    """Take away what the shell plugin of 2.19 and 2.20 puts around each script (strict mode, exit code)."""
    return script.strip().removeprefix(_STRICT_PREFIX).removesuffix(_EXIT_SUFFIX).strip()


def _decode_bootstrap(text: str) -> Request:
    head, separator, rest = text.partition(SEPARATOR)
    if not separator:
        raise RehearsalError(
            "the input of Ansible's bootstrap wrapper has no separator line (four NUL characters) after its first part;"
            f" the rehearsal knows ansible-core {SUPPORTED}"
        )
    requirements = _bootstrap_parameters(_document(head, "the bootstrap part"))
    manifest, has_data, data = rest.partition(SEPARATOR)
    request = _decode_manifest(_document(manifest, "the exec manifest"))
    if bool(has_data) != (request.kind == "put_file"):
        state = "no data part" if request.kind == "put_file" else "a data part"
        raise RehearsalError(f"a {request.kind} payload came with {state}")
    if request.kind == "put_file":
        request.data = data
        put_file_content(request)
    else:
        request.parameters |= requirements
    return request


def _typed(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise RehearsalError(f"{what} is a {type(value).__name__}, expected {kind.__name__}")
    return value


def _document(text: str, what: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        # The document itself may hold secrets, so the message shows positions only.
        raise RehearsalError(f"{what} of a payload is not JSON: {error.msg} at {error.pos}") from None
    return dict(_typed(document, dict, f"{what} of a payload"))


def _keys(document: Mapping[str, Any], what: str, required: Collection[str], optional: Collection[str] = ()) -> None:
    """Check that a part of a payload is an object with exactly the keys that are known."""
    _typed(document, dict, what)
    if missing := sorted(set(required) - set(document)):
        raise RehearsalError(f"{what} lacks {', '.join(missing)}; the rehearsal knows ansible-core {SUPPORTED}")
    if unknown := sorted(set(document) - set(required) - set(optional)):
        raise RehearsalError(f"{what} has unknown {', '.join(unknown)}; the rehearsal knows ansible-core {SUPPORTED}")


def _bootstrap_parameters(bootstrap: Mapping[str, Any]) -> dict[str, Any]:
    _keys(bootstrap, "the bootstrap part", ("name", "script", "params"))
    if bootstrap["name"] != "exec_wrapper":
        raise RehearsalError(f"the bootstrap part starts {bootstrap['name']!r}, expected 'exec_wrapper'")
    parameters = bootstrap["params"]
    _keys(parameters, "params of the bootstrap part", (), _BOOTSTRAP_PARAMETERS)
    for name, value in parameters.items():
        if not isinstance(value, str | None):
            raise RehearsalError(f"params of the bootstrap part: {name} is a {type(value).__name__}, expected a text")
    interpreter = parameters.get("PwshPath")
    if interpreter not in (None, "powershell", "powershell.exe"):
        raise RehearsalError(
            f"a module asks for the interpreter {interpreter!r}: simulated hosts have Windows PowerShell 5.1 only"
        )
    return {name: parameters[name] for name in ("MinOSVersion", "MinPSVersion") if parameters.get(name)}


def _decode_manifest(manifest: Mapping[str, Any]) -> Request:
    _keys(manifest, "the exec manifest", ("scripts", "actions", "signed_hashlist"))
    scripts = _typed(manifest["scripts"], dict, "scripts of the exec manifest")
    for name, script in scripts.items():
        _keys(script, f"script {name} of the exec manifest", ("path", "script"))
        _typed(script["path"], str, f"path of script {name}")
        _typed(script["script"], str, f"body of script {name}")
    for name in _typed(manifest["signed_hashlist"], list, "signed_hashlist of the exec manifest"):
        _script_text(scripts, name)
    actions = _typed(manifest["actions"], list, "actions of the exec manifest")
    for action in actions:
        _keys(action, "an action of the exec manifest", ("name", "params", "secure_params"))
        _typed(action["name"], str, "the name of an action")
        _typed(action["params"], dict, f"params of {action['name']}")
        _typed(action["secure_params"], dict, f"secure_params of {action['name']}")
        if action["name"] not in scripts:
            raise RehearsalError(f"the exec manifest has an action {action['name']!r} without its script")
    order = [action["name"] for action in actions]
    if len(order) == 1 and order[0] in _BUILT_IN:
        return _built_in(actions[0])
    request = Request("module")
    expected = ["become_wrapper.ps1", "async_wrapper.ps1", "async_watchdog.ps1", "module_wrapper.ps1"]
    if unknown := [name for name in order if name not in expected]:
        raise RehearsalError(
            f"the exec manifest has an action that the rehearsal does not know: {unknown[0]!r};"
            f" the rehearsal knows ansible-core {SUPPORTED} without remote coverage"
        )
    if not order or order[-1] != expected[-1] or order != [name for name in expected if name in order]:
        raise RehearsalError(f"the exec manifest has actions in an unknown order: {', '.join(order) or 'none'}")
    if ("async_wrapper.ps1" in order) != ("async_watchdog.ps1" in order):
        raise RehearsalError("the exec manifest has only one of async_wrapper.ps1 and async_watchdog.ps1")
    for action in actions:
        parameters = action["params"]
        if action["name"] != "become_wrapper.ps1" and action["secure_params"]:
            raise RehearsalError(f"action {action['name']} has secure parameters: not known")
        match action["name"]:
            case "become_wrapper.ps1":
                _keys(parameters, "become_wrapper.ps1", ("BecomeUser",), ("LogonType", "LogonFlags"))
                _keys(action["secure_params"], "become_wrapper.ps1", (), ("BecomePassword",))
                _texts(parameters, "params of become_wrapper.ps1")
                _texts(action["secure_params"], "secure_params of become_wrapper.ps1")
                secrets = {name: Secret(value) for name, value in action["secure_params"].items()}
                request.become = {**parameters, **secrets}
            case "async_wrapper.ps1":
                _keys(parameters, "async_wrapper.ps1", ("AsyncDir", "AsyncJid", "StartupTimeout"))
                _parameters(parameters, "async_wrapper.ps1")
                request.asynchronous = dict(parameters)
            case "async_watchdog.ps1":
                _keys(parameters, "async_watchdog.ps1", ("Timeout",))
                _parameters(parameters, "async_watchdog.ps1")
                request.asynchronous = {**(request.asynchronous or {}), **parameters}
            case _:
                _decode_module(request, parameters, scripts)
    return request


def _built_in(action: Mapping[str, Any]) -> Request:
    kind, parameters = _BUILT_IN[action["name"]]
    _keys(action["params"], action["name"], parameters)
    _parameters(action["params"], action["name"])
    if action["secure_params"]:
        raise RehearsalError(f"action {action['name']} has secure parameters: not known")
    return Request(kind, parameters=dict(action["params"]))  # type: ignore[arg-type]


_NUMBERS: Final = frozenset({"BufferSize", "Offset", "StartupTimeout", "Timeout"})


def _parameters(parameters: Mapping[str, Any], action: str) -> None:
    """Check the types of an action's parameters: texts, but for the few numbers."""
    for name, value in parameters.items():
        _typed(value, int if name in _NUMBERS else str, f"{name} of {action}")


def _texts(values: Mapping[str, Any], what: str) -> None:
    for name, value in values.items():
        _typed(value, str, f"{name} in {what}")


def _environment_text(name: str, value: Any) -> str:
    """A task's ``environment`` may hold any scalar; PowerShell turns it into a text."""
    if value is None or isinstance(value, dict | list):
        raise RehearsalError(f"environment variable {name} is a {type(value).__name__}, expected a text")
    return str(value)


def _script_text(scripts: Mapping[str, Any], name: str) -> str:
    if _typed(name, str, "the name of a script") not in scripts:
        raise RehearsalError(f"the exec manifest names a script {name!r} that it does not carry")
    raw = _base64(scripts[name]["script"], f"script {name}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RehearsalError(f"script {name} is not UTF-8: {error}") from None


def _decode_module(request: Request, parameters: Mapping[str, Any], scripts: Mapping[str, Any]) -> None:
    _keys(parameters, "module_wrapper.ps1", ("Script", "Environment"), _MODULE_KEYS)
    name = parameters["Script"]
    request.script = _script_text(scripts, name)
    environment = _typed(parameters["Environment"], dict, "Environment of module_wrapper.ps1")
    request.environment = {key: _environment_text(key, value) for key, value in environment.items()}
    if "ForModule" not in parameters:
        _keys(parameters, "module_wrapper.ps1 of a script", ("Script", "Environment"))
        request.kind, request.module = "script", name
        return
    _keys(parameters, "module_wrapper.ps1 of a module", _MODULE_KEYS)
    if parameters["ForModule"] is not True:
        raise RehearsalError(f"module_wrapper.ps1: ForModule is {parameters['ForModule']!r}, expected true")
    for kind in ("CSharpModules", "PowerShellModules"):
        for dependency in _typed(parameters[kind], list, f"{kind} of module_wrapper.ps1"):
            _script_text(scripts, dependency)
    arguments = _complex_args(parameters["Variables"])
    request.internal = {
        key.removeprefix("_ansible_"): value for key, value in arguments.items() if key.startswith("_ansible_")
    }
    request.arguments = {key: value for key, value in arguments.items() if not key.startswith("_ansible_")}
    if unknown := sorted(set(request.internal) - _INTERNAL):
        raise RehearsalError(f"module {name} came with the unknown internal argument _ansible_{unknown[0]}")
    request.module = _module_name(name)


def _complex_args(variables: list[dict[str, Any]]) -> dict[str, Any]:
    names = []
    for variable in _typed(variables, list, "Variables of module_wrapper.ps1"):
        _keys(variable, "a variable of module_wrapper.ps1", ("Name", "Value", "Scope"))
        names.append((variable["Name"], variable["Scope"]))
    if names != [("complex_args", "Global")]:
        raise RehearsalError(f"module_wrapper.ps1 sets {names}, expected the one global variable complex_args")
    return dict(_typed(variables[0]["Value"], dict, "complex_args"))


def _module_name(script: str) -> str:
    """``ansible_collections.NS.NAME.plugins.modules.MODULE.ps1`` -> ``NS.NAME.MODULE``; other names lose ``.ps1``."""
    bare = script.removesuffix(".ps1")
    match = _MODULE_FOLDER.match(bare)
    return ".".join(match.groups()) if match else bare
