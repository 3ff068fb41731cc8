# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a new Windows instance is trusted: its certificate from the EC2 console output, its password from EC2.

The instance makes its own certificate at first boot and prints it on the serial console as one line
``RENDERFARM-CERTIFICATE <base64 of the DER>``. Who reads it through the AWS API knows that no other machine wrote it.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from .aws_errors import error_code
from .machines import console_text

# A line counts once it has ended: a line that is still being written is cut off.
_CERTIFICATE_LINE = re.compile(r"^RENDERFARM-CERTIFICATE[ \t]+(\S+)[ \t]*\r?\n", re.MULTILINE)
_ENDING = ("shutting-down", "terminated", "stopping", "stopped")

CERTIFICATE_FILE = "winrm.pem"
PASSWORD_FILE = "password"
INSTANCE_FILE = "instance_id"


class AccessError(Exception):
    """The machine cannot be trusted or logged on to; the text is for the user."""


class Client(Protocol):
    """The part of boto3's EC2 client that is used here."""

    def get_console_output(self, **parameters: Any) -> Mapping[str, Any]: ...
    def get_password_data(self, **parameters: Any) -> Mapping[str, Any]: ...
    def describe_instances(self, **parameters: Any) -> Mapping[str, Any]: ...


# --------------------------------------------------------------------------------------------------------- certificates


@dataclass(frozen=True)
class Certificate:
    """An X.509 certificate and what is said about it. ``fingerprint`` is the SHA-256 of the DER in hex digits."""

    pem: bytes
    fingerprint: str
    addresses: tuple[str, ...]
    not_after: str


def certificate_line(console: str) -> str | None:
    """The base64 text of the last complete certificate line (the machine booted last is the one that answers)."""
    found = _CERTIFICATE_LINE.findall(console)
    return str(found[-1]) if found else None


def read_certificate(text: str) -> Certificate:
    """Decode what stands behind ``RENDERFARM-CERTIFICATE``."""
    try:
        der = base64.b64decode(text, validate=True)
        return _describe(x509.load_der_x509_certificate(der))
    except (binascii.Error, ValueError, UnsupportedAlgorithm) as error:
        raise AccessError(
            f"The RENDERFARM-CERTIFICATE line on the console is not an X.509 certificate in base64 ({error}). "
            "Remedy: look at the console output in the EC2 console; terminate the instance and start it anew."
        ) from error


def read_pem(pem: bytes) -> Certificate:
    """Decode a certificate file; ValueError when it is none."""
    return _describe(x509.load_pem_x509_certificate(pem))


def _describe(certificate: x509.Certificate) -> Certificate:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        addresses = tuple(str(address) for address in names.get_values_for_type(x509.IPAddress))
    except x509.ExtensionNotFound:
        addresses = ()
    return Certificate(
        pem=certificate.public_bytes(serialization.Encoding.PEM),
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        addresses=addresses,
        not_after=certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def check_address(certificate: Certificate, address: str) -> None:
    """AccessError unless the certificate names ``address`` as an IP address (subject alternative name)."""
    if address not in certificate.addresses:
        named = ", ".join(certificate.addresses) or "no address"
        raise AccessError(
            f"The certificate that the machine printed names {named}, but the controller would connect to {address}. "
            "Remedy: connect to an address that it names; after the address of the instance changed, terminate the "
            "instance and start it anew, so that it makes a new certificate."
        )


# ------------------------------------------------------------------------------------------------------------ passwords


def load_key(pem: bytes, passphrase: str | None, name: str) -> rsa.RSAPrivateKey:
    """The private key of the key pair. ``name`` is how messages call it."""
    secret = passphrase.encode() if passphrase else None
    try:
        if b"OPENSSH PRIVATE KEY" in pem:
            key: Any = serialization.load_ssh_private_key(pem, secret)
        else:
            key = serialization.load_pem_private_key(pem, secret)
    except TypeError as error:
        raise AccessError(
            f"The key {name} {'needs a' if secret is None else 'has no'} passphrase. "
            f"Remedy: {'set key_passphrase' if secret is None else 'leave key_passphrase out'}."
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise AccessError(
            f"The key {name} cannot be read ({error}). "
            "Remedy: name the private key in PEM format that belongs to the instance's key pair, and its passphrase."
        ) from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise AccessError(
            f"The key {name} is no RSA key. Remedy: EC2 encrypts Windows passwords for RSA key pairs only; "
            "make a key pair of type rsa."
        )
    return key


def decrypt_password(data: str, key: rsa.RSAPrivateKey, name: str) -> str:
    """The password in ``PasswordData`` (base64, RSA with PKCS #1 v1.5; EC2 API Reference, GetPasswordData)."""
    try:
        password = key.decrypt(base64.b64decode(data, validate=False), padding.PKCS1v15()).decode()
    except (binascii.Error, ValueError) as error:
        password = ""
        cause: Exception | None = error
    else:
        cause = None
    # With the wrong key OpenSSL 3.2 and later gives random bytes of random length instead of an error (implicit
    # rejection). EC2Launch makes passwords of 32 characters.
    if len(password) < 8 or not password.isprintable():
        raise AccessError(
            f"The password of the instance cannot be decrypted with the key {name}. "
            "Remedy: name the private key of the key pair that the instance was launched with."
        ) from cause
    return password


# ---------------------------------------------------------------------------------------------------------------- files


@dataclass(frozen=True)
class Folder:
    """The files about one instance. The folder gets mode 0700, its files 0600."""

    path: Path

    @property
    def certificate(self) -> Path:
        return self.path / CERTIFICATE_FILE

    @property
    def password(self) -> Path:
        return self.path / PASSWORD_FILE

    def known(self, instance_id: str, address: str, *, with_password: bool) -> Certificate | None:
        """The certificate on disk when all files are there and belong to this instance and address, else None."""
        try:
            if (self.path / INSTANCE_FILE).read_text().strip() != instance_id:
                return None
            certificate = read_pem(self.certificate.read_bytes())
            if with_password and not self.password.read_bytes():
                return None
        except (FileNotFoundError, ValueError):
            return None
        return certificate if address in certificate.addresses else None

    def write(self, instance_id: str, certificate: Certificate, password: str | None) -> bool:
        """Write what differs and say whether anything did. The marker goes last: it vouches for the others."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        changed = _set_mode(self.path, 0o700)
        contents = [(self.certificate, certificate.pem)]
        if password is not None:
            contents.append((self.password, password.encode()))
        contents.append((self.path / INSTANCE_FILE, f"{instance_id}\n".encode()))
        for path, data in contents:
            changed |= write_secret(path, data)
        return changed


def write_secret(path: Path, data: bytes) -> bool:
    """Have a file of mode 0600 with this content; it is never there half-written. Says whether it changed."""
    if path.is_file() and path.read_bytes() == data:
        return _set_mode(path, 0o600)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mkstemp gives mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return True


def _set_mode(path: Path, mode: int) -> bool:
    if path.stat().st_mode & 0o777 == mode:
        return False
    path.chmod(mode)
    return True


# -------------------------------------------------------------------------------------------------------------- waiting


@dataclass(frozen=True)
class Access:
    """What a machine gave: its certificate and, if asked for, its Administrator password."""

    certificate: Certificate
    password: str | None


def wait_for_access(
    client: Client,
    instance_id: str,
    address: str,
    key: rsa.RSAPrivateKey | None,
    *,
    key_name: str = "",
    timeout: float = 900,
    poll_seconds: float = 5,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Access:
    """Ask every ``poll_seconds`` until the console shows the certificate and, with a ``key``, EC2 has the password.

    AccessError when the time (seconds) is up, when the instance is ending, or when what it gave is unusable.
    """
    deadline = clock() + timeout
    certificate: Certificate | None = None
    password: str | None = None
    console = ""
    while True:
        if certificate is None:
            console = _console(client, instance_id) or console
            line = certificate_line(console)
            if line:
                certificate = read_certificate(line)
                check_address(certificate, address)
        if key is not None and password is None:
            data = _password_data(client, instance_id)
            password = decrypt_password(data, key, key_name) if data else None
        if certificate is not None and (key is None or password is not None):
            return Access(certificate, password)
        _check_running(client, instance_id, console)
        if clock() + poll_seconds > deadline:
            missing = list(_missing(certificate, key, password))
            raise AccessError(
                f"Instance {instance_id} gave no {' and no '.join(missing)} within {timeout:.0f} s. "
                + _advice(certificate, console)
            )
        sleep(poll_seconds)


def _missing(certificate: Certificate | None, key: rsa.RSAPrivateKey | None, password: str | None) -> Iterator[str]:
    if certificate is None:
        yield "certificate on its console"
    if key is not None and password is None:
        yield "password"


def _advice(certificate: Certificate | None, console: str) -> str:
    if certificate is not None:
        return (
            "Remedy: EC2 has a password only of instances that were launched with a key pair and whose EC2Launch sets "
            "a random one at first boot; check the instance's key pair and the image (EC2Launch.exe reset --clean)."
        )
    return "Remedy: its user data must run the bootstrap that prints it. " + _last_lines(console)


def _last_lines(console: str) -> str:
    lines = [line.rstrip() for line in console.splitlines() if line.strip()][-10:]
    return "The console's last lines:\n" + "\n".join(lines) if lines else "The console is empty."


def _console(client: Client, instance_id: str) -> str:
    try:
        return console_text(client, instance_id)
    except Exception as error:
        if error_code(error) == "InvalidInstanceID.NotFound":
            return ""  # new ones are unknown for seconds: EC2 is eventually consistent
        raise


def _password_data(client: Client, instance_id: str) -> str:
    try:
        return str(client.get_password_data(InstanceId=instance_id).get("PasswordData") or "").strip()
    except Exception as error:
        if error_code(error) == "InvalidInstanceID.NotFound":
            return ""
        raise


def _check_running(client: Client, instance_id: str, console: str) -> None:
    """AccessError when the instance will never answer because it is ending."""
    try:
        answer = client.describe_instances(InstanceIds=[instance_id])
    except Exception as error:
        if error_code(error) == "InvalidInstanceID.NotFound":
            return
        raise
    for reservation in answer.get("Reservations", ()):
        for instance in reservation["Instances"]:
            if instance["State"]["Name"] in _ENDING:
                reason = str(instance.get("StateReason", {}).get("Message") or "EC2 gives no reason").rstrip(".")
                raise AccessError(
                    f"Instance {instance_id} is {instance['State']['Name']} ({reason}) and gives no access. "
                    "Remedy: start it again or launch another one. " + _last_lines(console)
                )
