"""farmnode as it is gathered before it is copied to machines (role node_agent)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tests.templates.render import PROJECT


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stage", PROJECT / "roles/node_agent/files/stage.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def package(tmp_path: Path) -> Path:
    package = tmp_path / "source/farmnode"
    (package / "part/__pycache__").mkdir(parents=True)
    (package / "boot.py").write_text("boot = 1\n")
    (package / "part/one.py").write_text("one = 1\n")
    (package / "part/__pycache__/one.pyc").write_bytes(b"\0")
    return package


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_the_package_is_gathered_without_compiled_files(script: ModuleType, package: Path, tmp_path: Path) -> None:
    staged = script.stage(package, tmp_path / "stage")
    assert staged.name == "farmnode"
    assert contents(staged) == {"boot.py": "boot = 1\n", "part/one.py": "one = 1\n"}


def test_the_same_is_gathered_once(script: ModuleType, package: Path, tmp_path: Path) -> None:
    staged = script.stage(package, tmp_path / "stage")
    (staged / "boot.py").write_text("another playbook copies this now\n")
    (package / "part/__pycache__/two.pyc").write_bytes(b"\1")
    assert script.stage(package, tmp_path / "stage") == staged
    assert (staged / "boot.py").read_text() == "another playbook copies this now\n"


def test_what_changed_is_gathered_beside_it(script: ModuleType, package: Path, tmp_path: Path) -> None:
    before = script.stage(package, tmp_path / "stage")
    (package / "boot.py").write_text("boot = 2\n")
    after = script.stage(package, tmp_path / "stage")
    assert contents(before)["boot.py"] == "boot = 1\n" and contents(after)["boot.py"] == "boot = 2\n"
    assert sorted(path.name for path in (tmp_path / "stage").iterdir()) == sorted(
        {before.parent.name, after.parent.name}
    )


def test_another_playbook_may_be_faster(
    script: ModuleType, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slower(copy: Path, staged: Path) -> None:
        copy.replace(staged)
        raise OSError("Directory not empty")

    monkeypatch.setattr(Path, "rename", slower)
    assert contents(script.stage(package, tmp_path / "stage")).keys() == {"boot.py", "part/one.py"}


def test_a_copy_that_fails_is_told(
    script: ModuleType, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(copy: Path, staged: Path) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="No space left"):
        script.stage(package, tmp_path / "stage")
