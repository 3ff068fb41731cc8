"""The drive C:, command lines and the registry."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from rehearsal.windows import commandline
from rehearsal.windows.errors import WindowsError
from rehearsal.windows.files import Files
from rehearsal.windows.registry import Registry


@pytest.fixture
def files(tmp_path: Path) -> Files:
    (tmp_path / "c").mkdir()
    return Files(tmp_path / "c", {}, lambda: None)


def code(error: pytest.ExceptionInfo[WindowsError]) -> int:
    return error.value.code


def test_names_are_compared_without_case_and_keep_it(files: Files) -> None:
    files.make_directory("C:\\Program Files\\Ünï")
    files.write_bytes("c:/program files/ÜNÏ/File.TXT", b"x")
    assert files.read_bytes("C:\\PROGRAM FILES\\ünï\\file.txt") == b"x"
    assert files.shown("c:\\program files\\ünï\\file.txt") == "C:\\Program Files\\Ünï\\File.TXT"
    files.write_bytes("C:\\Program Files\\Ünï\\FILE.txt", b"y")
    assert files.names("C:\\program files\\ünï") == ["File.TXT"]
    assert files.windows(files.real("C:\\Program Files")) == "C:\\Program Files"


@pytest.mark.parametrize(
    "path", ["C:\\a<b", 'C:\\a"b', "C:\\a|b", "C:\\x?", "C:\\nul", "C:\\com1.txt", "C:\\sub\\LPT1", "C:\\a:stream"]
)
def test_names_that_windows_does_not_allow(files: Files, path: str) -> None:
    with pytest.raises(WindowsError) as error:
        files.write_bytes(path, b"")
    assert code(error) == 123
    assert not files.exists(path)


@pytest.mark.parametrize("path", ["D:\\x", "\\\\server\\share\\x", "relative", "C:relative", "/etc/passwd", ""])
def test_only_the_drive_c_exists(files: Files, path: str) -> None:
    with pytest.raises(WindowsError) as error:
        files.read_bytes(path)
    assert code(error) == 3


def test_no_path_leaves_the_drive(files: Files) -> None:
    assert files.real("C:\\..\\..\\etc\\passwd") == files.root / "etc" / "passwd"
    assert files.absolute("C:\\a.\\b \\.\\..\\c") == "C:\\a\\c"


def test_errors_of_reading_and_writing(files: Files) -> None:
    files.make_directory("C:\\folder")
    for path, expected in (("C:\\folder\\no", 2), ("C:\\none\\no", 3), ("C:\\folder", 5)):
        with pytest.raises(WindowsError) as error:
            files.read_bytes(path)
        assert code(error) == expected
    for path, expected in (("C:\\none\\no", 3), ("C:\\folder", 5)):
        with pytest.raises(WindowsError) as error:
            files.write_bytes(path, b"")
        assert code(error) == expected
    files.write_bytes("C:\\file", b"")
    with pytest.raises(WindowsError) as error:
        files.make_directory("C:\\file")
    assert code(error) == 183


def test_read_only_files_are_refused_unless_forced(files: Files) -> None:
    files.make_directory("C:\\d")
    files.write_bytes("C:\\d\\f", b"1")
    files.set_attributes("C:\\D\\F", read_only=True, hidden=True)
    assert files.entry("C:\\d\\f").attributes == ("ReadOnly", "Hidden", "Archive")
    for change in (lambda: files.write_bytes("C:\\d\\f", b""), lambda: files.append_bytes("C:\\d\\f", b"")):
        with pytest.raises(WindowsError, match="Access to the path 'C:\\\\d\\\\f' is denied"):
            change()
    for path in ("C:\\d\\f", "C:\\d"):
        with pytest.raises(WindowsError) as error:
            files.delete(path)
        assert code(error) == 5
    files.delete("C:\\d", force=True)
    files.make_directory("C:\\d")
    files.write_bytes("C:\\d\\f", b"")
    assert files.entry("C:\\d\\f").attributes == ("Archive",), "attributes went with the file"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (r'"C:\a b\x.exe" -i "two words" plain', [r"C:\a b\x.exe", "-i", "two words", "plain"]),
        (r'x "a\"b" c\\d "e\\" f', ["x", 'a"b', r"c\\d", "e\\", "f"]),
        (r'x a""b "" "say ""hi"""', ["x", "ab", "", 'say "hi"']),
        (r"x C:\folder\ y", ["x", "C:\\folder\\", "y"]),
        ("", []),
    ],
)
def test_command_lines_are_split_as_windows_does(line: str, words: list[str]) -> None:
    assert commandline.split(line) == words


@pytest.mark.parametrize("word", ["plain", "two words", 'quo"te', "back\\", "a b\\", '\\"', "", "C:\\x y\\z", "tab\tx"])
def test_a_quoted_argument_comes_back(word: str) -> None:
    assert commandline.split("x " + commandline.quote(word)) == ["x", word]


def test_environment_variables_are_put_in() -> None:
    assert commandline.expand("%temp%\\x %NO% 100%", {"TEMP": "C:\\T"}) == "C:\\T\\x %NO% 100%"


def test_registry_paths_have_three_notations() -> None:
    keys: dict[str, object] = {}
    registry = Registry(keys, lambda: None)  # type: ignore[arg-type]
    registry.set(r"HKLM:\SOFTWARE\Foo", "Name", "REG_SZ", "x")
    assert registry.data(r"HKEY_LOCAL_MACHINE\software\FOO", "NAME") == "x"
    assert registry.subkeys("hklm") == ["SOFTWARE"]
    registry.set(r"HKLM\SOFTWARE\foo", "NAME", "REG_DWORD", 1)
    assert [(value.name, value.type) for value in registry.values(r"HKLM\SOFTWARE\Foo")] == [("Name", "REG_DWORD")]
    assert registry.delete(r"HKLM\SOFTWARE") and not registry.exists(r"HKLM\SOFTWARE\Foo")
    assert not registry.delete(r"HKLM\SOFTWARE")
    with pytest.raises(ValueError, match="no hive"):
        registry.exists(r"HKXX\y")
    with pytest.raises(ValueError, match="no type"):
        registry.set(r"HKLM\a", "b", "REG_LINK", "")


def test_a_full_drive(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    for change in (lambda: files.write_bytes("C:\\x", b"y"), lambda: files.make_directory("C:\\y")):
        with pytest.raises(WindowsError, match="There is not enough space on the disk"):
            change()
