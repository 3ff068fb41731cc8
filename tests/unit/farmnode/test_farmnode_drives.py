"""The share: what the user data says, who tells the password to whom, and how it is mapped."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from farmnode_fakes import FARM, Bench, FakeClock, FakeWindows, instance

from farmnode import drives, drives_keys, manager
from farmnode.boot import Boot
from farmnode.drives import Share
from farmnode.drives_keys import Keys, secrets_folder, told_by
from farmnode.errors import FarmNodeError
from farmnode.powershell import POWERSHELL
from farmnode.programs import Completed
from farmnode.report import Log
from tests.ports import free_port

PASSWORD = "correct horse 'battery' $staple"
HOME = (IPv4Network("127.0.0.0/8"),)
JSON = {"unc": r"\\10.0.0.10\farm", "drive": "F:", "port": 3240, "certificate": "-----BEGIN"}


def certificate(address: str = "127.0.0.1") -> tuple[str, str]:
    """A certificate for ``address`` and its key, made as the role farm_share makes them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "render farm share")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def put(folder: Path, pem: str, told: Any) -> None:
    place = secrets_folder(folder)
    place.mkdir(parents=True, exist_ok=True)
    (place / "share.pem").write_text(pem)
    (place / "share.json").write_text(told if isinstance(told, str) else json.dumps(told))


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "farmnode.log", FakeClock())


@pytest.fixture
def keys(tmp_path: Path, log: Log) -> Iterator[Keys]:
    made = Keys(tmp_path, HOME, log, address="127.0.0.1")
    yield made
    made.close()


def serve(keys: Keys, folder: Path, told: Any = None) -> Share:
    pem, private = certificate()
    put(folder, pem + private, told or {"user": "renderfarm", "password": PASSWORD})
    keys.stand(0)
    return Share(r"\\127.0.0.1\farm", "F:", keys.port, pem)


# ----------------------------------------------------------------------------------------------------- the user data


def test_the_share_of_the_user_data() -> None:
    assert drives.share_from_json(JSON) == Share(r"\\10.0.0.10\farm", "F:", 3240, "-----BEGIN")


@pytest.mark.parametrize(
    "change",
    [
        {"unc": r"\10.0.0.10\farm"}, {"unc": r"\\10.0.0.10\farm'; evil"}, {"unc": r"\\10.0.0.10\farm\deep"},
        {"drive": "C:"}, {"drive": "f:"}, {"drive": "F"}, {"port": 0}, {"port": 65536}, {"port": True}, {"port": "1"},
        {"certificate": None}, {"more": 1},
    ],
)  # fmt: skip
def test_a_share_that_is_not_exactly_that_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FarmNodeError) as caught:
        drives.share_from_json(JSON | change)
    assert caught.value.reason == "bad_user_data"


def test_a_share_must_be_an_object() -> None:
    with pytest.raises(FarmNodeError, match="exactly unc, drive, port, certificate"):
        drives.share_from_json(r"\\10.0.0.10\farm")


# ------------------------------------------------------------------------------------------------------ the password


def test_the_manager_tells_the_password(keys: Keys, tmp_path: Path) -> None:
    share = serve(keys, tmp_path)
    assert [drives.fetch(share) for _ in range(3)] == [("renderfarm", PASSWORD)] * 3


def test_nothing_is_told_before_the_files_came(keys: Keys, tmp_path: Path, log: Log) -> None:
    keys.stand(0)
    pem, _ = certificate()
    with pytest.raises(FarmNodeError, match="does not tell the share's password"):
        drives.fetch(Share(r"\\127.0.0.1\farm", "F:", keys.port, pem))
    assert "127.0.0.1 was not told the share's password" in log.path.read_text()


def test_new_files_are_told_at_once(keys: Keys, tmp_path: Path) -> None:
    first = serve(keys, tmp_path)
    port = keys.port
    keys.stand(0)
    assert keys.port == port
    pem, private = certificate()
    put(tmp_path, pem + private, {"user": "renderfarm", "password": "another one"})
    share = Share(first.unc, first.drive, keys.port, pem)
    assert drives.fetch(share) == ("renderfarm", "another one")
    with pytest.raises(FarmNodeError, match="is not the manager"):
        drives.fetch(Share(first.unc, first.drive, keys.port, first.certificate))


def test_who_is_not_in_the_farm_gets_nothing(tmp_path: Path, log: Log) -> None:
    keys = Keys(tmp_path, (IPv4Network("10.0.0.0/24"),), log, address="127.0.0.1")
    try:
        share = serve(keys, tmp_path)
        with pytest.raises(FarmNodeError):
            drives.fetch(share)
    finally:
        keys.close()
    assert "127.0.0.1 asked for the share's password: it is in no network of the farm" in log.path.read_text()


def test_a_certificate_for_another_address_is_refused(keys: Keys, tmp_path: Path) -> None:
    pem, private = certificate("10.0.0.99")
    put(tmp_path, pem + private, {"user": "renderfarm", "password": PASSWORD})
    keys.stand(0)
    with pytest.raises(FarmNodeError, match="is not the manager") as caught:
        drives.fetch(Share(r"\\127.0.0.1\farm", "F:", keys.port, pem))
    assert caught.value.reason == "no_share"


def test_a_client_that_does_not_speak_tls_harms_nobody(keys: Keys, tmp_path: Path, log: Log) -> None:
    share = serve(keys, tmp_path)
    with socket.create_connection(("127.0.0.1", keys.port)) as plain:
        plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert PASSWORD.encode() not in plain.recv(4096)
    assert drives.fetch(share) == ("renderfarm", PASSWORD)


@pytest.mark.parametrize("told", ["{", json.dumps({"user": "x"}), "[]"])
def test_files_that_cannot_be_used_are_named_without_their_content(tmp_path: Path, told: str) -> None:
    pem, private = certificate()
    put(tmp_path, pem + private, told)
    with pytest.raises(FarmNodeError, match=r"share\.pem or share\.json cannot be used \(\w+\)"):
        told_by(secrets_folder(tmp_path))
    put(tmp_path, "no certificate", {"user": "renderfarm", "password": PASSWORD})
    with pytest.raises(FarmNodeError) as caught:
        told_by(secrets_folder(tmp_path))
    assert PASSWORD not in str(caught.value)


def test_a_port_that_is_taken_is_named(keys: Keys, tmp_path: Path) -> None:
    serve(keys, tmp_path)
    other = Keys(tmp_path, HOME, keys._log, address="127.0.0.1")
    with pytest.raises(FarmNodeError, match=f"port {keys.port}"):
        other.stand(keys.port)


def test_a_manager_that_is_silent(tmp_path: Path) -> None:
    pem, _ = certificate()
    with pytest.raises(FarmNodeError, match="does not tell the share's password"):
        drives.fetch(Share(r"\\127.0.0.1\farm", "F:", free_port(), pem))


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"[]", b'{"user": "x"}', b'{"user": "x", "password": ""}', b'{"user": "x", "password": 7}',
        b'{"user": "x\'; evil", "password": "y"}', b'{"user": "x", "password": "a\\nb"}', b"x" * 9000,
    ],
)  # fmt: skip
def test_an_answer_that_is_not_user_and_password(
    keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    share = serve(keys, tmp_path)
    context, _ = told_by(secrets_folder(tmp_path))
    monkeypatch.setattr(drives_keys, "told_by", lambda folder: (context, answer))
    with pytest.raises(FarmNodeError, match="is not user and password"):
        drives.fetch(share)


# ------------------------------------------------------------------------------------------------------- the mapping


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drives, "fetch", lambda share: ("renderfarm", PASSWORD))


class Shell(FakeWindows):
    """powershell.exe as it ends in ``answers``."""

    def __init__(self, *ends: Completed) -> None:
        super().__init__()
        self.ends = list(ends)
        self.given: list[bytes | None] = []

    def run(self, name: str, arguments: Any, *, timeout: float = 60.0, stdin: bytes | None = None) -> Completed:
        self.calls.append([name, *arguments])
        self.given.append(stdin)
        return self.ends.pop(0)


@pytest.mark.usefixtures("told")
def test_the_mapping_has_no_secret_on_its_command_line() -> None:
    shell = Shell(Completed(0, "", ""))
    assert drives.map_share(drives.share_from_json(JSON), shell) == r"F: is \\10.0.0.10\farm, for every account"
    name, *options, script = shell.calls[0]
    assert (name, options) == (POWERSHELL, ["-NoProfile", "-NonInteractive", "-Command"])
    assert PASSWORD not in " ".join(shell.calls[0]) and shell.given == [(PASSWORD + "\r\n").encode()]
    assert r"New-SmbGlobalMapping -LocalPath 'F:' -RemotePath '\\10.0.0.10\farm' -Credential $who" in script
    assert script.endswith("-RequirePrivacy $true -Persistent $false"), "Windows keeps it, password and all, otherwise"


@pytest.mark.usefixtures("told")
def test_a_refusal_is_told_without_the_password() -> None:
    with pytest.raises(
        FarmNodeError, match=r"cannot be mapped to F: as renderfarm: The password \*\*\* is wrong"
    ) as no:
        drives.map_share(drives.share_from_json(JSON), Shell(Completed(1, "", f"The password {PASSWORD} is wrong")))
    assert no.value.reason == "no_share"


@pytest.mark.usefixtures("told")
def test_a_boot_without_its_share_fails_in_that_phase(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    share = json.dumps(JSON)
    bench.metadata.answer = instance(FARM % ("render_node", f',"share":{share},"limits":{{"manager":30}}'))
    bench.windows.__dict__["_WindowsPowerShell/v1.0/powershell"] = lambda *_: Completed(1, "", "Access is denied.")
    monkeypatch.setattr(manager, "listens", lambda *_, **__: False)
    event = Boot(bench.machine).run()
    assert (event["event"], event["phase"], event["code"]) == ("failed", "drives", "no_share")
    assert bench.windows.calls[-1] == ["shutdown.exe", "/s", "/f", "/t", "0"]


def test_the_certificate_is_all_that_is_trusted(keys: Keys, tmp_path: Path) -> None:
    share = serve(keys, tmp_path)
    context = ssl.create_default_context(cadata=share.certificate)
    assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname
    assert len(context.get_ca_certs()) == 1
