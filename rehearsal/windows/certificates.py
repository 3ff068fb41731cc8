"""The certificate stores of a host and the certificates that it makes for itself."""

from __future__ import annotations

import base64
import ssl
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID, ObjectIdentifier

MY = "LocalMachine\\My"

_SUBJECT_ALTERNATIVE_NAME = "2.5.29.17"
_EXTENDED_KEY_USAGE = "2.5.29.37"
_BASIC_CONSTRAINTS = "2.5.29.19"
_KEY_USAGES = {
    "none": (),
    "digitalsignature": ("digital_signature",),
    "nonrepudiation": ("content_commitment",),
    "keyencipherment": ("key_encipherment",),
    "dataencipherment": ("data_encipherment",),
    "keyagreement": ("key_agreement",),
    "certsign": ("key_cert_sign",),
    "crlsign": ("crl_sign",),
    "encipheronly": ("encipher_only",),
    "decipheronly": ("decipher_only",),
}


@dataclass(frozen=True)
class StoredCertificate:
    """A certificate in a store, with its key when the host has it."""

    store: str
    thumbprint: str
    der: bytes
    key: bytes
    friendly_name: str = ""

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.der)

    def pem(self) -> bytes:
        """The certificate in PEM form."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


class Certificates:
    """All stores of a host."""

    def __init__(self, state: dict[str, dict[str, str]], changed: Callable[[], None]) -> None:
        """``state``: thumbprint -> store, certificate and key (base64 and PEM) of the host's saved state."""
        self._state = state
        self._changed = changed

    def add(
        self, store: str, certificate: x509.Certificate, key: rsa.RSAPrivateKey, name: str = ""
    ) -> StoredCertificate:
        """Put a certificate with its key into a store."""
        stored = StoredCertificate(
            store=store,
            thumbprint=certificate.fingerprint(hashes.SHA1()).hex().upper(),
            der=certificate.public_bytes(serialization.Encoding.DER),
            key=key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            friendly_name=name,
        )
        self._state[stored.thumbprint] = {
            "store": store,
            "certificate": base64.b64encode(stored.der).decode(),
            "key": stored.key.decode(),
            "friendly_name": name,
        }
        self._changed()
        return stored

    def get(self, thumbprint: str) -> StoredCertificate | None:
        """The certificate of that thumbprint (spaces and case do not matter)."""
        thumbprint = thumbprint.replace(" ", "").upper()
        entry = self._state.get(thumbprint)
        if entry is None:
            return None
        return StoredCertificate(
            entry["store"],
            thumbprint,
            base64.b64decode(entry["certificate"]),
            entry["key"].encode(),
            entry["friendly_name"],
        )

    def list(self, store: str = MY) -> Sequence[StoredCertificate]:
        """What a store holds."""
        found = (self.get(thumbprint) for thumbprint in self._state)
        return [entry for entry in found if entry is not None and entry.store.lower() == store.lower()]

    def remove(self, thumbprint: str) -> None:
        """Take a certificate out of its store; KeyError when there is none."""
        del self._state[thumbprint]
        self._changed()

    def tls(self, thumbprint: str) -> ssl.SSLContext:
        """A server's TLS settings with that certificate; KeyError when the store does not hold it with its key."""
        stored = self.get(thumbprint)
        if stored is None:
            raise KeyError(thumbprint)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:  # the ssl module reads certificates from files only
            file.write(stored.pem() + stored.key)
            file.flush()
            context.load_cert_chain(file.name)
        return context


@dataclass(frozen=True)
class Request:
    """What New-SelfSignedCertificate was asked for.

    ``text_extensions`` are strings such as ``2.5.29.17={text}IPAddress=10.0.0.10&DNS=manager`` (reference: Microsoft,
    New-SelfSignedCertificate).
    """

    subject: str = ""
    dns_names: tuple[str, ...] = ()
    text_extensions: tuple[str, ...] = ()
    key_usage: tuple[str, ...] = ()
    key_length: int = 2048
    not_after: datetime | None = None


def self_signed(request: Request, now: datetime | None = None) -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
    """Make a key and a certificate with the fields that Windows would set.

    Without -KeyUsage Windows sets DigitalSignature and KeyEncipherment, without an extended key usage both client and
    server authentication, and the certificate is valid from ten minutes ago for one year.  ValueError with Windows'
    kind of text for what it would not take.
    """
    now = now or datetime.now(UTC)
    key = rsa.generate_private_key(public_exponent=65537, key_size=request.key_length)
    name = _subject(request)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=10))
        .not_valid_after(request.not_after or now + timedelta(days=365))
    )
    builder = builder.add_extension(_key_usage(request.key_usage), critical=True)
    given = {}
    for text in request.text_extensions:
        oid, _, value = text.partition("=")
        critical = value.lower().startswith("{critical}")
        value = value[len("{critical}") :] if critical else value
        if not value.lower().startswith("{text}"):
            raise ValueError(
                f"rehearsal: the text extension {text!r} is not modelled; use the form OID={{text}}Name=value"
            )
        given[oid.strip()] = (value[len("{text}") :], critical)
    usages = [ObjectIdentifier("1.3.6.1.5.5.7.3.2"), ObjectIdentifier("1.3.6.1.5.5.7.3.1")]
    if _EXTENDED_KEY_USAGE in given:
        usages = [ObjectIdentifier(part.strip()) for part in given[_EXTENDED_KEY_USAGE][0].split(",")]
    builder = builder.add_extension(
        x509.ExtendedKeyUsage(usages), critical=given.get(_EXTENDED_KEY_USAGE, ("", False))[1]
    )
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in request.dns_names]
    if _SUBJECT_ALTERNATIVE_NAME in given:
        names += [_general_name(part) for part in given[_SUBJECT_ALTERNATIVE_NAME][0].split("&")]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if _BASIC_CONSTRAINTS in given:
        text, critical = given[_BASIC_CONSTRAINTS]
        builder = builder.add_extension(_basic_constraints(text), critical=critical)
    unknown = set(given) - {_SUBJECT_ALTERNATIVE_NAME, _EXTENDED_KEY_USAGE, _BASIC_CONSTRAINTS}
    if unknown:
        raise ValueError(f"rehearsal: the certificate extension {', '.join(sorted(unknown))} is not modelled")
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return builder.sign(key, hashes.SHA256()), key


def _subject(request: Request) -> x509.Name:
    if not request.subject:
        if not request.dns_names:
            raise ValueError("Cannot create a certificate without a subject: give -Subject or -DnsName.")
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, request.dns_names[0])])
    attributes = []
    kinds = {"CN": NameOID.COMMON_NAME, "O": NameOID.ORGANIZATION_NAME, "OU": NameOID.ORGANIZATIONAL_UNIT_NAME}
    text = request.subject if "=" in request.subject else f"CN={request.subject}"
    for part in text.split(","):
        kind, _, value = part.strip().partition("=")
        if kind.upper() not in kinds or not value:
            raise ValueError(f"CertEnroll::CX500DistinguishedName::Encode: The string {request.subject!r} is invalid.")
        attributes.append(x509.NameAttribute(kinds[kind.upper()], value))
    return x509.Name(attributes)


def _key_usage(names: tuple[str, ...]) -> x509.KeyUsage:
    flags: dict[str, bool] = {flag: False for flags in _KEY_USAGES.values() for flag in flags}
    for name in names or ("DigitalSignature", "KeyEncipherment"):
        if name.lower() not in _KEY_USAGES:
            raise ValueError(f"Cannot bind parameter 'KeyUsage'. Unable to match the identifier name {name}.")
        for flag in _KEY_USAGES[name.lower()]:
            flags[flag] = True
    return x509.KeyUsage(**flags)


def _general_name(text: str) -> x509.GeneralName:
    kind, _, value = text.strip().partition("=")
    if kind.lower() == "ipaddress":
        return x509.IPAddress(IPv4Address(value))
    if kind.lower() == "dns":
        return x509.DNSName(value)
    raise ValueError(f"rehearsal: the alternative name {text!r} is not modelled; use IPAddress= or DNS=")


def _basic_constraints(text: str) -> x509.BasicConstraints:
    ca, length = False, None
    for part in text.split("&"):
        kind, _, value = part.strip().partition("=")
        if kind.lower() == "ca":
            ca = value.strip().lower() in ("1", "true")
        elif kind.lower() == "pathlength":
            length = int(value)
        else:
            raise ValueError(f"rehearsal: the basic constraint {part!r} is not modelled")
    return x509.BasicConstraints(ca, length if ca else None)
