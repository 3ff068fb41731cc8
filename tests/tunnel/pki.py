"""Certificates and keys as the role vpn_pki makes them, and all the wrong ones that a server must refuse."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.renderfarm.cloud.plugins.module_utils import openvpn_keys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_USAGES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
_DAY = dt.timedelta(days=1)
YEAR = dt.timedelta(days=365)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@dataclass
class Authority:
    """One certificate authority with its folder of files, named as the role names them. ``now`` may be wrong."""

    folder: Path
    now: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    title: str = "studio render farm"

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        own = _name(self.title)
        self._certificate = (
            self._builder(own, self._key.public_key(), 3650 * _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.write("ca.crt", self._certificate.public_bytes(serialization.Encoding.PEM))
        self.write("ca.key", _pem(self._key))
        self.write("tls-crypt-v2-server.key", openvpn_keys.server_key().encode())
        self.revoke()

    def write(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, lasts: dt.timedelta, begins: dt.timedelta = -_DAY
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(_name(self.title))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now + begins)
            .not_valid_after(self.now + lasts)
        )

    def issue(
        self,
        name: str,
        usage: str,
        *,
        lasts: dt.timedelta = 825 * _DAY,
        begins: dt.timedelta = -_DAY,
        extended_usage: str = "",
        common_name: str = "",
    ) -> None:
        """Write ``<name>.crt``, ``<name>.key`` and, for a client, its key of the handshake."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            self._builder(_name(common_name or name), key.public_key(), lasts, begins)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([_USAGES[extended_usage or usage]]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.write(f"{name}.key", _pem(key))
        self.write(f"{name}.crt", certificate.public_bytes(serialization.Encoding.PEM))
        if usage == "client":
            self.handshake_key(name, (self.folder / "tls-crypt-v2-server.key").read_text())

    def handshake_key(self, client: str, server_key: str) -> None:
        self.write(f"{client}.tls-crypt-v2.key", openvpn_keys.client_key(server_key).encode())

    def revoke(self, *names: str, lasts: dt.timedelta = 3650 * _DAY) -> None:
        """Write a new list of revoked certificates that holds exactly these."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name(self.title))
            .last_update(self.now + min(-_DAY, lasts - _DAY))
            .next_update(self.now + lasts)
        )
        for name in names:
            serial = x509.load_pem_x509_certificate((self.folder / f"{name}.crt").read_bytes()).serial_number
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(self.now).build()
            builder = builder.add_revoked_certificate(revoked)
        self.write("crl.pem", builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
