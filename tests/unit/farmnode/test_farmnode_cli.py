"""The commands as they are called."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from farmnode_fakes import FARM, NODE, Bench, instance

import farmnode
from farmnode import cli, manager
from farmnode.errors import FarmNodeError
from farmnode.manager import Server

PACKAGE = Path(farmnode.__file__).parent


class Run:
    def __init__(self, bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.bench, self.capsys, self.monkeypatch = bench, capsys, monkeypatch

    def __call__(self, *words: str, stdin: bytes = b"") -> tuple[int, Any]:
        self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        rc = cli.main(words, make_machine=lambda: self.bench.machine)
        out = self.capsys.readouterr().out
        assert out.isascii() and out.count("\n") == 1
        return rc, json.loads(out)


@pytest.fixture
def run(bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(bench, capsys, monkeypatch)


def test_converge(run: Run) -> None:
    desired = json.dumps({"manager": "10.0.0.10", "identity": NODE.as_json()}).encode()
    rc, result = run("converge", "--check", stdin=b"\xef\xbb\xbf" + desired)
    assert (rc, result["changed"]) == (0, True) and "diff" not in result
    rc, result = run("converge", "--diff", stdin=desired)
    assert (rc, result["changed"]) == (0, True) and set(result["diff"]) == {"before", "after"}
    assert run("converge", stdin=desired)[1]["changed"] is False


@pytest.mark.parametrize("stdin", [b"", b"{", b"\xff"])
def test_converge_without_json(run: Run, stdin: bytes) -> None:
    rc, result = run("converge", stdin=stdin)
    assert rc == 1 and result["failed"] is True
    assert result["reason"] == "bad_desired_state" and "standard input is not JSON" in result["msg"]


def test_boot_and_its_failure(run: Run) -> None:
    run.bench.metadata.answer = instance(FARM % ("builder", ""))
    assert run("boot")[0] == 0
    run.bench.metadata.answer = None
    rc, result = run("boot")
    assert (rc, result["failed"], result["event"], result["msg"]) == (
        1, True, "failed", "the metadata service is silent.",
    )  # fmt: skip
    assert run("status")[1]["event"] == "failed"


def test_seal(run: Run) -> None:
    run.bench.metadata.answer = instance("", tag="builder")
    assert run("seal")[1]["changed"] is True


def test_servers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def servers(address: str, port: int, clock: object) -> list[Server]:
        asked.append((address, port))
        return [Server(NODE.handle, "idle", NODE.name)]

    monkeypatch.setattr(manager, "servers", servers)
    rc, result = run("servers")
    assert (rc, result) == (
        0,
        {"servers": [{"handle": NODE.handle, "mac": NODE.mac, "state": "idle", "name": NODE.name}]},
    )
    run("servers", "--manager", "localhost", "--port", "99")
    assert asked == [("127.0.0.1", 3234), ("127.0.0.1", 99)]


def test_servers_and_jobs_after_a_wait(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Server(NODE.handle, "busy", NODE.name)
    waited: list[tuple[object, ...]] = []

    def wait_for(expected: list[str], address: str, port: int, clock: object, *, limit: float) -> list[Server]:
        waited.append((expected, address, port, limit))
        return [here]

    monkeypatch.setattr(manager, "wait_for", wait_for)
    monkeypatch.setattr(manager, "queue", lambda *_: ([here], [manager.Job("7", "busy", "shot")]))
    rc, result = run("servers", "--wait", "4", stdin=b'["06-11-22-33-44-5F"]')
    assert (rc, list(result)) == (0, ["servers"]) and waited == [([NODE.mac], "127.0.0.1", 3234, 4.0)]
    assert run("servers", "--jobs", "--wait", "4", stdin=b"[]") == (
        0,
        {"servers": [here.as_json()], "jobs": [{"handle": "7", "state": "busy", "name": "shot"}]},
    )
    assert run("servers", "--wait", "4", stdin=b'["x"]')[1]["reason"] == "bad_desired_state"
    assert "must be a list of MAC" in run("servers", "--wait", "4", stdin=b'{"a": 1}')[1]["msg"]


def test_a_failure_is_json(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise FarmNodeError("manager_unreachable", "größer")

    monkeypatch.setattr(manager, "servers", refused)
    assert run("servers") == (1, {"failed": True, "reason": "manager_unreachable", "msg": "größer"})
    monkeypatch.setattr(manager, "servers", lambda *_: 1 / 0)
    rc, result = run("servers")
    assert (rc, result["reason"], result["msg"]) == (1, "unexpected", "ZeroDivisionError: division by zero")


@pytest.mark.parametrize("words", [[], ["guard"], ["boot", "--now"], ["converge", "x"]])
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2 and "usage: farmnode" in capsys.readouterr().err


def test_only_the_standard_library_is_imported() -> None:
    allowed = set(sys.stdlib_module_names) | {"farmnode"}
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0 and node.module
                names = [node.module]
            assert {name.split(".")[0] for name in names} <= allowed, path.name


def test_it_runs_isolated_and_without_site_packages(bench: Bench) -> None:
    """As on a node: ``python.exe -I -m farmnode`` with a path file that names the standard library and our folder."""
    sc = bench.drive / "Windows" / "System32" / "sc.exe"
    sc.write_text(f"#!{sys.executable} -IS\nprint('[SC] OpenService FAILED 1060:')\nraise SystemExit(36)\n")
    sc.chmod(0o755)
    start = (
        "import runpy, sys\n"
        f"sys.path.append({str(PACKAGE.parent)!r})\n"
        "assert not [name for name in sys.path if 'site-packages' in name]\n"
        "sys.argv = ['farmnode', *sys.argv[1:]]\n"
        "runpy.run_module('farmnode', run_name='__main__')\n"
    )

    def python(*words: str, stdin: str = "") -> tuple[int, Any]:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-B", "-c", start, *words],
            input=stdin, capture_output=True, text=True, env=dict(os.environ), check=False,
        )  # fmt: skip
        assert not done.stderr, done.stderr
        return done.returncode, json.loads(done.stdout)

    rc, result = python("status")
    assert rc == 0 and set(result["services"].values()) == {"missing"}
    rc, result = python("converge", "--check", stdin=json.dumps({"manager": "10.0.0.10", "identity": NODE.as_json()}))
    assert (rc, result["changes"]["ManagerName"]) == (0, ["localhost", "10.0.0.10"])
    assert python("converge", stdin="{}")[0] == 1
