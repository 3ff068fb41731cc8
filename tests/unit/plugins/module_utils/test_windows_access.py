"""Certificate and password of a new Windows instance: only the right ones are taken, and kept safely."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.renderfarm.cloud.plugins.module_utils import windows_access as access
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from tests.unit.plugins.certificates import certificate_text

INSTANCE = "i-0123456789abcdef0"
KEY = rsa.generate_private_key(65537, 2048)


CERTIFICATE = certificate_text("10.0.0.10", "198.51.100.9")
LINE = f"RENDERFARM-CERTIFICATE {CERTIFICATE}\r\n"


def encrypted(password: str, key: rsa.RSAPrivateKey = KEY) -> str:
    """As GetPasswordData gives it, with the line breaks around it."""
    return "\r\n" + base64.b64encode(key.public_key().encrypt(password.encode(), padding.PKCS1v15())).decode() + "\r\n"


class FakeEC2:
    """Shows console and password from given moments on (seconds)."""

    def __init__(self, console: dict[float, str], password: dict[float, str], state: str = "running") -> None:
        self.console, self.password, self.state = console, password, state
        self.now = 0.0
        self.calls: list[str] = []
        self.known_from = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def clock(self) -> float:
        return self.now

    def _at(self, name: str, texts: dict[float, str]) -> str:
        self.calls.append(name)
        if self.now < self.known_from:
            raise ClientError({"Error": {"Code": "InvalidInstanceID.NotFound", "Message": "no"}}, name)
        return next((text for moment, text in sorted(texts.items(), reverse=True) if moment <= self.now), "")

    def get_console_output(self, *, InstanceId: str, Latest: bool) -> dict[str, Any]:
        assert Latest and InstanceId == INSTANCE
        text = self._at("get_console_output", self.console)
        return {"InstanceId": InstanceId, **({"Output": text} if text else {})}

    def get_password_data(self, *, InstanceId: str) -> dict[str, Any]:
        return {"InstanceId": InstanceId, "PasswordData": self._at("get_password_data", self.password)}

    def describe_instances(self, *, InstanceIds: list[str]) -> dict[str, Any]:
        self._at("describe_instances", {})
        instance = {"State": {"Name": self.state}, "StateReason": {"Message": "Client.UserInitiatedShutdown"}}
        return {"Reservations": [{"Instances": [instance]}]}


def wait(ec2: FakeEC2, address: str = "10.0.0.10", key: rsa.RSAPrivateKey | None = KEY) -> access.Access:
    return access.wait_for_access(ec2, INSTANCE, address, key, key_name="studio.pem", sleep=ec2.sleep, clock=ec2.clock)


# --------------------------------------------------------------------------------------------------------- certificates


@pytest.mark.parametrize(
    ("console", "expected"),
    [
        ("", None),
        ("Windows is Ready to use\r\n", None),
        ("RENDERFARM-CERTIFICATE AAAA\r\n", "AAAA"),
        ("boot\r\nRENDERFARM-CERTIFICATE AAAA\nmore", "AAAA"),
        ("RENDERFARM-CERTIFICATE AAAA\r\nx\r\nRENDERFARM-CERTIFICATE BBBB\r\n", "BBBB"),
        ("RENDERFARM-CERTIFICATE AAAA\r\nRENDERFARM-CERTIFICATE BBB", "AAAA"),  # the second is still being written
        ("RENDERFARM-CERTIFICATE AAA", None),
        ("he said RENDERFARM-CERTIFICATE AAAA\r\n", None),
        ("RENDERFARM-CERTIFICATE\r\nAAAA\r\n", None),
    ],
)
def test_the_last_complete_line_counts(console, expected):
    assert access.certificate_line(console) == expected


def test_a_certificate_is_described():
    certificate = access.read_certificate(CERTIFICATE)
    assert certificate.addresses == ("10.0.0.10", "198.51.100.9")
    assert certificate.not_after == "2027-01-01T00:00:00Z"
    assert len(certificate.fingerprint) == 64
    assert access.read_pem(certificate.pem) == certificate


@pytest.mark.parametrize("text", ["AAAA", "not base64!", "", CERTIFICATE[:400]])
def test_what_is_no_certificate_is_refused(text):
    with pytest.raises(access.AccessError, match=r"not an X\.509 certificate.*Remedy"):
        access.read_certificate(text)


@pytest.mark.parametrize(
    ("addresses", "named"), [(("10.0.0.11",), "names 10.0.0.11"), ((), "names no address"), (("::1",), "names ::1")]
)
def test_a_certificate_for_another_address_is_refused(addresses, named):
    certificate = access.read_certificate(certificate_text(*addresses))
    with pytest.raises(access.AccessError, match=rf"{named}.*connect to 10\.0\.0\.10.*Remedy"):
        access.check_address(certificate, "10.0.0.10")


# ------------------------------------------------------------------------------------------------------------ passwords


def pem(key: Any, passphrase: str | None = None, kind: Any = serialization.PrivateFormat.TraditionalOpenSSL) -> bytes:
    secret = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    return bytes(key.private_bytes(serialization.Encoding.PEM, kind, secret))


@pytest.mark.parametrize(
    ("kind", "passphrase"),
    [
        ("TraditionalOpenSSL", None),
        ("TraditionalOpenSSL", "pä$$"),
        ("PKCS8", None),
        ("PKCS8", "pä$$"),
        ("OpenSSH", None),
    ],
)
def test_keys_in_any_usual_form(kind, passphrase):
    loaded = access.load_key(pem(KEY, passphrase, getattr(serialization.PrivateFormat, kind)), passphrase, "k")
    assert loaded.private_numbers() == KEY.private_numbers()


@pytest.mark.parametrize(
    ("data", "passphrase", "words"),
    [
        (pem(KEY, "secret-123"), None, "needs a passphrase"),
        (pem(KEY, "secret-123"), "wrong", "cannot be read"),
        (pem(KEY), "secret-123", "has no passphrase"),
        (b"hello", None, "cannot be read"),
        (pem(ec.generate_private_key(ec.SECP256R1())), None, "is no RSA key"),
    ],
)
def test_keys_that_cannot_be_used(data, passphrase, words):
    with pytest.raises(access.AccessError, match=rf"studio\.pem.*{words}.*Remedy"):
        access.load_key(data, passphrase, "studio.pem")


def test_a_password_is_decrypted():
    assert access.decrypt_password(encrypted("pÄ;'\"&$ 1"), KEY, "k") == "pÄ;'\"&$ 1"


@pytest.mark.parametrize(
    "data", ["AAAA", encrypted(""), encrypted("another-123", rsa.generate_private_key(65537, 2048))]
)
def test_a_password_for_another_key_is_an_error(data):
    with pytest.raises(access.AccessError, match=r"cannot be decrypted with the key studio\.pem.*Remedy"):
        access.decrypt_password(data, KEY, "studio.pem")


# -------------------------------------------------------------------------------------------------------------- waiting


def test_it_waits_for_both():
    ec2 = FakeEC2({20: "booting\r\n", 60: f"booting\r\n{LINE}"}, {100: encrypted("secret-123")})
    found = wait(ec2)
    assert found.password == "secret-123"
    assert found.certificate.addresses == ("10.0.0.10", "198.51.100.9")
    assert ec2.now == 100
    assert ec2.calls.count("get_console_output") == 13  # no more once the certificate is known
    assert ec2.calls[-1] == "get_password_data"


def test_without_password_only_the_certificate_counts():
    ec2 = FakeEC2({10: LINE}, {})
    assert wait(ec2, key=None).password is None
    assert "get_password_data" not in ec2.calls


def test_a_new_instance_may_be_unknown_for_seconds():
    ec2 = FakeEC2({0: LINE}, {0: encrypted("secret-123")})
    ec2.known_from = 7
    assert wait(ec2).password == "secret-123"


@pytest.mark.parametrize(
    ("console", "password", "words"),
    [
        ({}, {}, "no certificate on its console and no password within 900 s.*The console is empty"),
        (
            {0: "one\r\ntwo failed\r\n"},
            {0: encrypted("secret-123")},
            "no certificate.*bootstrap.*last lines:\none\ntwo failed",
        ),
        ({0: LINE}, {}, "no password within 900 s.*key pair"),
    ],
)
def test_the_time_is_up(console, password, words):
    ec2 = FakeEC2(console, password)
    with pytest.raises(access.AccessError, match=f"(?s){words}"):
        wait(ec2)
    assert ec2.now <= 900


@pytest.mark.parametrize("state", ["shutting-down", "terminated", "stopped"])
def test_an_ending_instance_ends_the_wait_at_once(state):
    ec2 = FakeEC2({0: "last words\r\n"}, {}, state)
    with pytest.raises(access.AccessError, match=rf"(?s)is {state} \(Client.*last words"):
        wait(ec2)
    assert ec2.now == 0


def test_a_certificate_for_another_address_ends_the_wait_at_once():
    ec2 = FakeEC2({0: LINE}, {})
    with pytest.raises(access.AccessError, match=r"connect to 10\.0\.0\.11"):
        wait(ec2, address="10.0.0.11")
    assert ec2.now == 0


def test_other_refusals_pass_through():
    ec2 = FakeEC2({}, {})
    ec2._at = lambda name, texts: (_ for _ in ()).throw(  # type: ignore[method-assign]
        ClientError({"Error": {"Code": "UnauthorizedOperation", "Message": "no"}}, name)
    )
    with pytest.raises(ClientError):
        wait(ec2)


# ---------------------------------------------------------------------------------------------------------------- files


def modes(path: Path) -> dict[str, str]:
    return {entry.name: oct(entry.stat().st_mode & 0o777) for entry in path.iterdir()}


def test_files_are_private_and_complete(tmp_path):
    folder = access.Folder(tmp_path / "a" / "b")
    certificate = access.read_certificate(CERTIFICATE)
    assert folder.write(INSTANCE, certificate, "secret-123") is True
    assert modes(folder.path) == {"winrm.pem": "0o600", "password": "0o600", "instance_id": "0o600"}
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert folder.password.read_text() == "secret-123"
    assert folder.write(INSTANCE, certificate, "secret-123") is False
    assert folder.known(INSTANCE, "198.51.100.9", with_password=True) == certificate


def test_wrong_modes_are_a_change(tmp_path):
    folder = access.Folder(tmp_path)
    certificate = access.read_certificate(CERTIFICATE)
    folder.write(INSTANCE, certificate, "secret-123")
    folder.password.chmod(0o644)
    assert folder.write(INSTANCE, certificate, "secret-123") is True
    assert modes(tmp_path)["password"] == "0o600"


def test_files_of_another_instance_address_or_kind_are_not_known(tmp_path):
    folder = access.Folder(tmp_path)
    assert folder.known(INSTANCE, "10.0.0.10", with_password=True) is None
    folder.write(INSTANCE, access.read_certificate(CERTIFICATE), None)
    assert folder.known(INSTANCE, "10.0.0.10", with_password=False)
    assert folder.known(INSTANCE, "10.0.0.10", with_password=True) is None
    assert folder.known("i-0fedcba9876543210", "10.0.0.10", with_password=False) is None
    assert folder.known(INSTANCE, "10.0.0.12", with_password=False) is None
    folder.certificate.write_text("broken")
    assert folder.known(INSTANCE, "10.0.0.10", with_password=False) is None


def test_a_file_that_cannot_be_written_leaves_the_old_one_whole(tmp_path, monkeypatch):
    target = tmp_path / "password"
    access.write_secret(target, b"old")

    def full(self: Path, other: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        access.write_secret(target, b"new")
    assert target.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["password"]
