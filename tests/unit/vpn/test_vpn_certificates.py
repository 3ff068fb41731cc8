"""What the PKI's folder says about itself: dates, usage, authority, revocation. No key is ever opened."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ansible_collections.renderfarm.cloud.plugins.module_utils import vpn_certificates as pki
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
USAGES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
WANTED = {"studio-workstation": "server", "aws-gateway": "client"}
SECRET = "never read this"


class Folder:
    """A PKI made with ``cryptography`` alone. Files of keys hold no key: nobody may open them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.authority = self._certificate("studio render farm", None, 3650)
        (path / "ca.crt").write_bytes(pem(self.authority))
        self.secret("ca.key")
        self.revocations()

    def secret(self, name: str, mode: int = 0o600) -> None:
        (self.path / name).write_text(SECRET)
        (self.path / name).chmod(mode)

    def _certificate(self, name: str, usage: str | None, days: int) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        own = self.key if usage is None else ec.generate_private_key(ec.SECP256R1())
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if usage is None else self.authority.subject)
            .public_key(own.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=1000))
            .not_valid_after(NOW + timedelta(days=days))
        )
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([USAGES[usage]]), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def add(self, name: str, usage: str, days: int = 825, common_name: str | None = None) -> x509.Certificate:
        certificate = self._certificate(common_name or name, usage, days)
        (self.path / f"{name}.crt").write_bytes(pem(certificate))
        self.secret(f"{name}.key")
        if usage == "client":
            self.secret(f"{name}.tls-crypt-v2.key")
        return certificate

    def revocations(self, *serials: int, days: int = 3650) -> None:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.authority.subject)
            .last_update(NOW - timedelta(days=1000))
            .next_update(NOW + timedelta(days=days))
        )
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW).build()
            builder = builder.add_revoked_certificate(entry)
        crl = builder.sign(self.key, hashes.SHA256())
        (self.path / "crl.pem").write_bytes(crl.public_bytes(serialization.Encoding.PEM))

    def read(self, **options: object) -> pki.Pki:
        return pki.read_pki(self.path, **({"wanted": WANTED, "now": NOW} | options))

    def states(self, **options: object) -> dict[str, tuple[str, str]]:
        return {row.name: (row.state, row.action) for row in self.read(**options).certificates}


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    made.add("studio-workstation", "server")
    made.add("aws-gateway", "client")
    return made


def test_complete_folder_needs_nothing(folder: Folder) -> None:
    found = folder.read()
    assert [row.action for row in [found.authority, found.revocations, *found.certificates]] == ["none"] * 4
    assert {row.state for row in found.certificates} == {"good"}


def test_facts_of_a_certificate(folder: Folder) -> None:
    certificate = folder.add("aws-gateway", "client", days=30)
    row = folder.read().certificates[1]
    assert (row.name, row.usage, row.days_left, row.revoked) == ("aws-gateway", "client", 30, False)
    assert (row.not_after, int(row.serial, 16)) == ("2026-12-23T12:00:00Z", certificate.serial_number)
    assert len(row.serial) % 2 == 0


def test_result_is_plain_data_without_secrets(folder: Folder) -> None:
    assert SECRET not in json.dumps(folder.read().as_dict())


def test_private_keys_are_never_opened(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.append(path.name) or original(path))
    folder.read()
    assert sorted(opened) == ["aws-gateway.crt", "ca.crt", "crl.pem", "studio-workstation.crt"]


def test_empty_folder_is_to_be_made(tmp_path: Path) -> None:
    found = pki.read_pki(tmp_path / "not there", wanted=WANTED, now=NOW)
    assert [row.action for row in [found.authority, found.revocations, *found.certificates]] == ["make"] * 4


@pytest.mark.parametrize(("days", "state"), [(61, "good"), (60, "good"), (59, "due"), (1, "due"), (-1, "expired")])
def test_what_expires_within_the_limit_is_due(folder: Folder, days: int, state: str) -> None:
    folder.add("aws-gateway", "client", days=days)
    action = "none" if state == "good" else "renew"
    assert folder.states(renew_days=60)["aws-gateway"] == (state, action)


def test_named_certificate_is_renewed_whatever_its_dates(folder: Folder) -> None:
    assert folder.states(renew=["aws-gateway"]) == {
        "studio-workstation": ("good", "none"),
        "aws-gateway": ("due", "renew"),
    }


def test_unknown_name_is_refused_with_those_that_are_known(folder: Folder) -> None:
    with pytest.raises(pki.PkiError, match="no certificate named gateway; there are aws-gateway, studio-workstation"):
        folder.read(renew=["gateway"])


def test_revoked_certificate_is_refused_until_it_is_named(folder: Folder) -> None:
    folder.revocations(folder.add("aws-gateway", "client").serial_number)
    assert folder.states()["aws-gateway"] == ("revoked", "refuse")
    assert folder.states(renew=["aws-gateway"])["aws-gateway"] == ("revoked", "renew")


def test_kept_revocation_counts_although_the_list_lacks_it(folder: Folder) -> None:
    certificate = folder.add("aws-gateway", "client")
    (folder.path / "revoked").mkdir()
    (folder.path / "revoked/aws-gateway-1.crt").write_bytes(pem(certificate))
    found = folder.read()
    assert (found.revocations.state, found.revocations.action) == ("due", "make")
    assert [entry.serial_number for entry in found.revocations.entries] == [certificate.serial_number]
    assert folder.states()["aws-gateway"] == ("revoked", "refuse")


def test_entries_of_the_list_are_kept_with_their_dates(folder: Folder) -> None:
    folder.revocations(1234, days=10)
    found = folder.read().revocations
    assert (found.state, found.action) == ("due", "make")
    assert found.entries == [pki.RevocationEntry(1234, "20261123120000Z")]


def test_list_of_another_authority_is_unusable(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Folder(tmp_path / "other")
    (folder.path / "crl.pem").write_bytes((other.path / "crl.pem").read_bytes())
    assert folder.read().revocations.reason == "another authority signed it"
    (folder.path / "crl.pem").write_text("damaged")
    assert folder.read().revocations.state == "unusable"


def test_certificate_of_another_authority_is_replaced(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    Folder(tmp_path / "other").add("aws-gateway", "client")
    (folder.path / "aws-gateway.crt").write_bytes((tmp_path / "other/aws-gateway.crt").read_bytes())
    assert folder.states()["aws-gateway"] == ("unusable", "renew")


def test_wrong_usage_wrong_name_and_damage_are_replaced(folder: Folder) -> None:
    folder.add("aws-gateway", "server")
    assert folder.states()["aws-gateway"] == ("unusable", "renew")
    folder.add("aws-gateway", "client", common_name="somebody")
    assert folder.states()["aws-gateway"] == ("unusable", "renew")
    (folder.path / "aws-gateway.crt").write_text("damaged")
    row = folder.read().certificates[1]
    assert (row.state, row.action, row.serial) == ("unusable", "renew", "")


def test_missing_key_needs_another_certificate_missing_handshake_key_does_not(folder: Folder) -> None:
    (folder.path / "aws-gateway.tls-crypt-v2.key").unlink()
    assert folder.states()["aws-gateway"] == ("good", "make")
    (folder.path / "aws-gateway.key").unlink()
    assert folder.states()["aws-gateway"] == ("unusable", "renew")


@pytest.mark.parametrize("name", ["aws-gateway.key", "aws-gateway.tls-crypt-v2.key"])
def test_key_that_others_can_read_is_noticed(folder: Folder, name: str) -> None:
    (folder.path / name).chmod(0o640)
    assert folder.states()["aws-gateway"] == ("good", "make")


def test_files_to_archive_end_with_the_certificate(folder: Folder) -> None:
    names = [Path(file).name for file in folder.read().certificates[1].files]
    assert names == ["aws-gateway.tls-crypt-v2.key", "aws-gateway.key", "aws-gateway.crt"]


def test_what_nobody_needs_is_left_alone_while_it_lasts(folder: Folder) -> None:
    folder.add("remote-9", "client")
    assert folder.states()["remote-9"] == ("good", "none")
    folder.add("remote-9", "client", days=5)
    assert folder.states()["remote-9"] == ("due", "archive")
    folder.revocations(folder.add("remote-9", "client").serial_number)
    assert folder.states()["remote-9"] == ("revoked", "none")


def test_lost_or_damaged_authority_is_for_its_owner(folder: Folder) -> None:
    (folder.path / "ca.key").unlink()
    with pytest.raises(pki.PkiError, match=r"ca\.key is not there.*backup"):
        folder.read()
    (folder.path / "ca.crt").write_text("damaged")
    with pytest.raises(pki.PkiError, match=r"ca\.crt is no certificate.*backup"):
        folder.read()


def test_warnings_name_what_and_how(folder: Folder) -> None:
    folder.add("aws-gateway", "client", days=12)
    folder.revocations(days=-2)
    texts = pki.warnings(folder.read(), 60)
    assert [text.split(". Renew: ")[0] for text in texts] == [
        "The certificate aws-gateway of the tunnel expires in 12 days, on 2026-12-05T12:00:00Z",
        "The revocation list of the tunnel expired on 2026-11-21T12:00:00Z",
    ]
    assert all("playbooks/vpn-renew.yml" in text for text in texts)
    assert pki.warnings(folder.read(), 0) == [texts[1]]


def test_revoked_certificates_are_not_warned_of(folder: Folder) -> None:
    folder.revocations(folder.add("aws-gateway", "client", days=1).serial_number)
    assert pki.warnings(folder.read(), 60) == []
