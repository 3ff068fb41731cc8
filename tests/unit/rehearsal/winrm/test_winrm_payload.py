"""What ansible-core 2.19, 2.20 and 2.21 sent, and damaged versions of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from rehearsal.interfaces import RehearsalError, Request
from rehearsal.winrm import payload, specs

PAYLOADS = Path(__file__).parents[3] / "fixtures" / "payloads"
VERSIONS = sorted(path.name for path in PAYLOADS.iterdir() if path.is_dir())
CASES = sorted(path.stem for path in (PAYLOADS / VERSIONS[-1]).glob("*.json"))

KINDS = {
    "async": ["module"],
    "become": ["module"],
    "fetch": ["module", "fetch_file"],
    "raw": ["powershell"],
    "script": ["mkdtemp", "put_file", "script", "powershell"],
    "setup": ["module"],
    "slurp": ["module"],
    "win_command": ["module"],
    "win_copy": ["module", "mkdtemp", "put_file", "module", "powershell"],
    "win_file": ["module"],
    "win_ping": ["module"],
    "win_service": ["module"],
}


@lru_cache
def steps(version: str, case: str) -> list[dict[str, str]]:
    document = json.loads((PAYLOADS / version / f"{case}.json").read_text())
    assert (document["core"], document["case"]) == (version, case)
    return list(document["steps"])


def decoded(version: str, case: str) -> list[Request]:
    return [payload.decode(step["command_line"], step["stdin"].encode()) for step in steps(version, case)]


def test_three_minor_versions_are_recorded() -> None:
    assert [version.rsplit(".", 1)[0] for version in VERSIONS] == ["2.19", "2.20", "2.21"]
    assert sorted(KINDS) == CASES


@pytest.mark.parametrize("version", VERSIONS)
class TestGolden:
    @pytest.mark.parametrize("case", CASES)
    def test_kinds(self, version: str, case: str) -> None:
        assert [request.kind for request in decoded(version, case)] == KINDS[case]

    def test_module(self, version: str) -> None:
        (request,) = decoded(version, "win_ping")
        assert request.module == "ansible.windows.win_ping"
        assert request.arguments == {"data": "hello"}
        assert request.internal["version"] == version
        assert (request.internal["check_mode"], request.internal["diff"]) == (False, False)
        assert (request.become, request.asynchronous, request.environment) == (None, None, {})

    def test_check_mode_and_diff(self, version: str) -> None:
        (request,) = decoded(version, "win_service")
        assert (request.internal["check_mode"], request.internal["diff"]) == (True, True)
        assert request.arguments == {"name": "WinRM", "state": "started", "start_mode": "auto"}

    def test_environment(self, version: str) -> None:
        assert decoded(version, "win_file")[0].environment == {"A": "b c"}

    def test_types_stay(self, version: str) -> None:
        arguments = decoded(version, "win_command")[0].arguments
        assert arguments["argv"] == ["route.exe", "print", "-4"]
        assert json.loads(arguments["stdin"]) == {"a": 1}

    def test_async(self, version: str) -> None:
        (request,) = decoded(version, "async")
        assert request.asynchronous is not None
        assert request.asynchronous["AsyncJid"].startswith("j")
        assert request.asynchronous["Timeout"] == 60
        assert set(request.asynchronous) == {"AsyncDir", "AsyncJid", "StartupTimeout", "Timeout"}

    def test_become_hides_the_password(self, version: str) -> None:
        (request,) = decoded(version, "become")
        assert request.become is not None
        assert request.become["BecomeUser"] == "SYSTEM"
        assert request.become["LogonType"] == "NewCredentials"
        assert request.become["BecomePassword"] == "recorded-become-password"
        password = request.become["BecomePassword"]
        for shown in (repr(request), str(request), str(password), f"{password}", f"{password!r:>20}"):
            assert "recorded-become-password" not in shown

    def test_copy(self, version: str) -> None:
        query, folder, put, single, remove = decoded(version, "win_copy")
        assert (query.arguments["_copy_mode"], single.arguments["_copy_mode"]) == ("query", "single")
        assert set(folder.parameters) == {"Directory", "Name"}
        assert payload.put_file_content(put) == "eins\nzwei ä\n".encode()
        assert put.parameters["Path"].endswith("source")
        assert remove.script.startswith("Remove-Item ") and "Set-StrictMode" not in remove.script

    def test_fetch(self, version: str) -> None:
        stat, fetch = decoded(version, "fetch")
        assert stat.module == "ansible.windows.win_stat"
        assert fetch.parameters == {"Path": "C:\\Temp\\a.txt", "BufferSize": 524288, "Offset": 0}

    def test_raw_and_script(self, version: str) -> None:
        assert decoded(version, "raw")[0].script == "hostname.exe"
        script = decoded(version, "script")[2]
        assert script.script.strip().endswith("hello.ps1 one; exit $LASTEXITCODE")

    @pytest.mark.parametrize("case", CASES)
    def test_arguments_satisfy_the_specification_in_the_payload(self, version: str, case: str) -> None:
        for request in decoded(version, case):
            if request.kind == "module":
                spec = specs.specification(request.module, request.script)
                assert spec.source == "script"
                specs.check(request.module, request.arguments, script=request.script)


# ------------------------------------------------------------------------------------------------------------- damaged


def mutated(change: Callable[[dict[str, Any], dict[str, Any]], None], case: str = "win_ping", step: int = 0) -> None:
    """Decode a golden payload after ``change(bootstrap, manifest)``."""
    recorded = steps(VERSIONS[-1], case)[step]
    head, rest = recorded["stdin"].split(payload.SEPARATOR, 1)
    manifest_text, mark, data = rest.partition(payload.SEPARATOR)
    bootstrap, manifest = json.loads(head), json.loads(manifest_text)
    change(bootstrap, manifest)
    stdin = json.dumps(bootstrap) + payload.SEPARATOR + json.dumps(manifest) + mark + data
    payload.decode(recorded["command_line"], stdin.encode())


def test_unchanged_payload_decodes() -> None:
    mutated(lambda bootstrap, manifest: None)


def module_action(manifest: dict[str, Any]) -> dict[str, Any]:
    return dict(manifest["actions"][-1]["params"])


CHANGES: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], Any], str]] = {
    "unknown bootstrap key": (lambda b, m: b.update(extra=1), "unknown extra"),
    "missing bootstrap key": (lambda b, m: b.pop("script"), "lacks script"),
    "unknown bootstrap parameter": (lambda b, m: b["params"].update(Speed="fast"), "unknown Speed"),
    "bootstrap parameter type": (lambda b, m: b["params"].update(TempPath=7), "TempPath is a int"),
    "other wrapper": (lambda b, m: b.update(name="exec_wrapper_2"), "exec_wrapper_2"),
    "other interpreter": (lambda b, m: b["params"].update(PwshPath="pwsh"), "PowerShell 5.1 only"),
    "unknown manifest key": (lambda b, m: m.update(compressed=True), "unknown compressed"),
    "missing manifest key": (lambda b, m: m.pop("signed_hashlist"), "lacks signed_hashlist"),
    "no action": (lambda b, m: m.update(actions=[]), "unknown order: none"),
    "unknown action": (lambda b, m: m["actions"][0].update(name="AnsibleModuleX.ps1"), "without its script"),
    "action key": (lambda b, m: m["actions"][0].update(timeout=1), "unknown timeout"),
    "script key": (lambda b, m: m["scripts"]["module_wrapper.ps1"].update(signature=""), "unknown signature"),
    "script not base64": (
        lambda b, m: m["scripts"][m["actions"][-1]["params"]["Script"]].update(script="%"),
        "not base64",
    ),
    "unknown module parameter": (lambda b, m: m["actions"][-1]["params"].update(Retry=1), "unknown Retry"),
    "missing module parameter": (lambda b, m: m["actions"][-1]["params"].pop("Variables"), "lacks Variables"),
    "ForModule false": (lambda b, m: m["actions"][-1]["params"].update(ForModule=False), "ForModule"),
    "second variable": (
        lambda b, m: m["actions"][-1]["params"]["Variables"].append({"Name": "x", "Value": 1, "Scope": "Global"}),
        "expected the one global variable",
    ),
    "unknown internal argument": (
        lambda b, m: m["actions"][-1]["params"]["Variables"][0]["Value"].update(_ansible_magic=1),
        "_ansible_magic",
    ),
    "arguments not an object": (
        lambda b, m: m["actions"][-1]["params"]["Variables"][0].update(Value=[]),
        "complex_args is a list",
    ),
    "unknown dependency": (lambda b, m: m["actions"][-1]["params"]["CSharpModules"].append("X.cs"), "'X.cs'"),
    "unsigned hash list": (lambda b, m: m["signed_hashlist"].append("x.psd1"), "x.psd1"),
    "secret for a module": (lambda b, m: m["actions"][-1]["secure_params"].update(a=1), "secure parameters"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_not_understood_is_an_error(name: str) -> None:
    change, message = CHANGES[name]
    with pytest.raises(RehearsalError, match=message):
        mutated(change)


def test_environment_takes_scalars_as_texts() -> None:
    recorded = steps(VERSIONS[-1], "win_file")[0]
    head, manifest_text = recorded["stdin"].split(payload.SEPARATOR)
    manifest = json.loads(manifest_text)
    manifest["actions"][-1]["params"]["Environment"] = {"N": 5, "B": True}
    stdin = head + payload.SEPARATOR + json.dumps(manifest)
    assert payload.decode(recorded["command_line"], stdin.encode()).environment == {"N": "5", "B": "True"}


def test_unknown_action_with_its_script_is_an_error() -> None:
    def coverage(bootstrap: dict[str, Any], manifest: dict[str, Any]) -> None:
        manifest["scripts"]["coverage_wrapper.ps1"] = {"path": "x", "script": ""}
        manifest["actions"].insert(0, {"name": "coverage_wrapper.ps1", "params": {}, "secure_params": {}})

    with pytest.raises(RehearsalError, match=r"does not know: 'coverage_wrapper.ps1'"):
        mutated(coverage)


def test_actions_have_one_order() -> None:
    with pytest.raises(RehearsalError, match="unknown order"):
        mutated(lambda b, m: m["actions"].reverse(), "become")
    with pytest.raises(RehearsalError, match="only one of"):
        mutated(lambda b, m: m["actions"].pop(0), "async")
    with pytest.raises(RehearsalError, match="BecomeColour"):
        mutated(lambda b, m: m["actions"][0]["params"].update(BecomeColour="red"), "become")


def test_built_in_scripts_have_known_parameters() -> None:
    with pytest.raises(RehearsalError, match="unknown Mode"):
        mutated(lambda b, m: m["actions"][0]["params"].update(Mode=1), "win_copy", 2)
    with pytest.raises(RehearsalError, match="lacks Path"):
        mutated(lambda b, m: m["actions"][0]["params"].pop("Path"), "win_copy", 2)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (payload.SEPARATOR, "\n\0\0\0\n"),
        (payload.SEPARATOR, "\n"),
        (payload.SEPARATOR, "\0\0\0\0"),
        ('"actions"', "actions"),
    ],
)
def test_wrong_separators_and_broken_json_are_errors(old: str, new: str) -> None:
    (step,) = steps(VERSIONS[-1], "win_ping")
    with pytest.raises(RehearsalError):
        payload.decode(step["command_line"], step["stdin"].replace(old, new).encode())


def test_data_belongs_to_put_file_only() -> None:
    (ping,) = steps(VERSIONS[-1], "win_ping")
    with pytest.raises(RehearsalError, match="a module payload came with a data part"):
        payload.decode(ping["command_line"], (ping["stdin"] + payload.SEPARATOR).encode())
    put = steps(VERSIONS[-1], "win_copy")[2]
    without = put["stdin"].rsplit(payload.SEPARATOR, 1)[0]
    with pytest.raises(RehearsalError, match="came with no data part"):
        payload.decode(put["command_line"], without.encode())
    with pytest.raises(RehearsalError, match="not base64"):
        payload.decode(put["command_line"], (put["stdin"] + "&&&\r\n").encode())


def test_data_of_several_lines_and_none() -> None:
    put = steps(VERSIONS[-1], "win_copy")[2]
    head = put["stdin"].rsplit(payload.SEPARATOR, 1)[0] + payload.SEPARATOR
    lines = "".join(base64.b64encode(part).decode() + "\r\n" for part in (b"one", b"two"))
    assert payload.put_file_content(payload.decode(put["command_line"], (head + lines).encode())) == b"onetwo"
    assert payload.put_file_content(payload.decode(put["command_line"], head.encode())) == b""


def encoded(script: str) -> str:
    return base64.b64encode(script.encode("utf-16-le")).decode()


@pytest.mark.parametrize(
    ("line", "kind", "script"),
    [
        ("ipconfig /all", "command", "ipconfig /all"),
        (f"powershell -EncodedCommand {encoded('hostname')}", "powershell", "hostname"),
        (f"C:\\Windows\\powershell.exe -NoProfile -encodedcommand {encoded('a; b')}", "powershell", "a; b"),
        ('powershell -NoProfile -Command "Get-Item C:\\a b"', "powershell", "Get-Item C:\\a b"),
    ],
)
def test_command_lines(line: str, kind: str, script: str) -> None:
    request = payload.decode(line, b"input")
    assert (request.kind, request.script, request.stdin) == (kind, script, "input")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("powershell -File x.ps1", "-File"),
        ("powershell", "without -EncodedCommand"),
        ("powershell -EncodedCommand", "no script"),
        ("powershell -EncodedCommand %%%", "not base64"),
        ("powershell -EncodedCommand YQ==", "not UTF-16"),
        (f"powershell -EncodedCommand {encoded('a')} -EncodedArguments x", "ANSIBLE_KEEP_REMOTE_FILES"),
        (f"type C:\\a | PowerShell -EncodedCommand {encoded('a')}", "ANSIBLE_KEEP_REMOTE_FILES"),
    ],
)
def test_unknown_command_lines_are_errors(line: str, message: str) -> None:
    with pytest.raises(RehearsalError, match=message):
        payload.decode(line, b"")


def test_input_must_be_utf8() -> None:
    with pytest.raises(RehearsalError, match="not UTF-8"):
        payload.decode("ipconfig", b"\xff")


def nodes(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """All places of a JSON document except inside the module's own arguments, which may be anything."""
    yield path
    if path and path[-1] == "Value":
        return
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, item in items:
        yield from nodes(item, (*path, key))


@pytest.mark.parametrize("case", CASES)
def test_no_value_of_another_type_is_taken_silently(case: str) -> None:
    """Whatever part of a payload has another type is refused with a text, and never breaks the decoder."""
    for step in steps(VERSIONS[-1], case):
        if payload.SEPARATOR not in step["stdin"]:
            continue
        head, rest = step["stdin"].split(payload.SEPARATOR, 1)
        manifest_text, mark, data = rest.partition(payload.SEPARATOR)
        for path in nodes(json.loads(manifest_text)):
            manifest = json.loads(manifest_text)
            where: Any = {"": manifest}
            for key in ("", *path)[:-1]:
                where = where[key]
            key = ("", *path)[-1]
            for other in (None, 7, 1.5, True, "x", [1], {"x": 1}):
                where[key] = other
                changed = json.dumps(manifest if path else other)
                stdin = head + payload.SEPARATOR + changed + mark + data
                try:
                    payload.decode(step["command_line"], stdin.encode())
                except RehearsalError as error:
                    assert str(error)
                else:
                    numeric = path[-1] in ("BufferSize", "Offset", "StartupTimeout", "Timeout") and other == 7
                    free = path[-1] == "Value" or "Environment" in path or (path[-1] == "ForModule" and other is True)
                    accepted = numeric or free or isinstance(other, str)
                    assert accepted, (path, other)
