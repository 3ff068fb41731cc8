"""Authentication of one WinRM connection: NTLM with message encryption, and Basic.

Sources: "[MS-WSMV]: Web Services Management Protocol Extensions for Windows Vista", 2.2.9 (encryption), "[MS-NTHT]:
NTLM Over HTTP Protocol", RFC 7617 (Basic), RFC 5929 (channel binding ``tls-server-end-point``).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import os
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import spnego
from spnego._ntlm_raw.crypto import ntowfv1
from spnego.channel_bindings import GssChannelBindings
from spnego.exceptions import BadBindingsError

log = logging.getLogger(__name__)

ENCRYPTED_TYPE: Final = "multipart/encrypted"
_PROTOCOL: Final = "application/HTTP-SPNEGO-session-encrypted"
ENCRYPTED_CONTENT_TYPE: Final = f'{ENCRYPTED_TYPE};protocol="{_PROTOCOL}";boundary="Encrypted Boundary"'
_BOUNDARY: Final = b"--Encrypted Boundary"
_OCTETS: Final = b"Content-Type: application/octet-stream\r\n"
_SIGNATURE_LENGTH: Final = 16

# pyspnego's acceptor takes its accounts only from the file that the environment variable NTLM_USER_FILE names, and
# reads it at construction and again in each step. Several hosts with different accounts live in one process, so the
# variable is set around exactly these calls, under one lock.
_credential_store = threading.Lock()


class AuthenticationError(Exception):
    """The credentials or the message were refused."""


class MessageError(Exception):
    """An encrypted message is malformed or was tampered with."""


@dataclass(frozen=True)
class Accounts:
    """Who may log on to a host, and how."""

    computer_name: str
    passwords: Mapping[str, str]
    basic: bool

    def verify(self, user: str, password: str) -> str | None:
        """Return the account's own spelling of its name when the password is right (names ignore case)."""
        bare = user.rpartition("\\")[2].lower()
        for name, expected in self.passwords.items():
            if name.lower() == bare and hmac.compare_digest(expected.encode(), password.encode()):
                return name
        return None


@contextmanager
def _accounts_of(accounts: Accounts) -> Iterator[None]:
    """Let pyspnego see the accounts of one host, in a file that never touches a disk.

    The file holds NT hashes (the format of smbpasswd), because the other format breaks on a password with a colon.
    The LM hash is random: nobody logs on by LM.
    """
    lines = [
        f"{prefix}{user}:0:{os.urandom(16).hex().upper()}:{ntowfv1(password).hex().upper()}:[U]:LCT-0"
        for user, password in accounts.passwords.items()
        for prefix in ("", ".\\", f"{accounts.computer_name}\\")
    ]
    descriptor = os.memfd_create("ntlm-users", os.MFD_CLOEXEC)
    try:
        with _credential_store:
            os.write(descriptor, "\n".join(lines).encode())
            previous = os.environ.get("NTLM_USER_FILE")
            os.environ["NTLM_USER_FILE"] = f"/proc/self/fd/{descriptor}"
            try:
                yield
            finally:
                if previous is None:
                    del os.environ["NTLM_USER_FILE"]
                else:
                    os.environ["NTLM_USER_FILE"] = previous
    finally:
        os.close(descriptor)


class ConnectionAuthenticator:
    """The state of one TCP connection: NTLM authenticates the connection, Basic each request."""

    def __init__(self, *, tls: bool, certificate: bytes | None = None) -> None:
        """:param certificate: the server's certificate (DER); when given, a client's channel binding must fit it."""
        self._tls = tls
        self._context: Any = None
        self._scheme = ""
        self.user: str | None = None
        self._bindings: GssChannelBindings | None = None
        if tls and certificate is not None:
            digest = hashlib.sha256(certificate).digest()
            self._bindings = GssChannelBindings(application_data=b"tls-server-end-point:" + digest)

    def challenges(self, accounts: Accounts) -> list[str]:
        """Return the values of ``WWW-Authenticate`` that a refused request gets."""
        basic = ['Basic realm="WSMAN"'] if accounts.basic and self._tls else []
        return ["Negotiate", *basic]

    def authenticate(self, header: str | None, accounts: Accounts) -> str | None:
        """Take the ``Authorization`` header of a request; set ``user`` when it is complete.

        :returns: the value of ``WWW-Authenticate`` to answer with, when another step must follow.
        :raises AuthenticationError: for wrong or malformed credentials and for schemes that are off.
        """
        if header is None:
            if self.user is None:
                raise AuthenticationError("no credentials")
            return None
        self.user = None
        scheme, _, value = header.partition(" ")
        try:
            token = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise AuthenticationError("the Authorization header is not base64") from None
        if not token:
            raise AuthenticationError("the Authorization header carries nothing")
        match scheme.lower():
            case "basic":
                self._context = None
                self.user = self._basic(token, accounts)
                return None
            case "negotiate" | "ntlm":
                return self._negotiate(scheme, token, accounts)
            case _:
                raise AuthenticationError(f"authentication scheme {scheme!r} is not offered")

    def _basic(self, token: bytes, accounts: Accounts) -> str:
        if not accounts.basic:
            raise AuthenticationError("Basic authentication is off")
        if not self._tls:
            raise AuthenticationError("Basic authentication over plain HTTP is refused (AllowUnencrypted is false)")
        try:
            text = token.decode()
        except UnicodeDecodeError:
            text = token.decode("latin-1")  # RFC 7617 leaves it open; Python's requests sends this
        name, _, password = text.partition(":")
        user = accounts.verify(name, password)
        if user is None:
            raise AuthenticationError(f"wrong user or password for {name!r}")
        return user

    def _negotiate(self, scheme: str, token: bytes, accounts: Accounts) -> str | None:
        raw = token.startswith(b"NTLMSSP\0")
        try:
            with _accounts_of(accounts):
                if self._context is None or self._context.complete:
                    self._context = spnego.server(
                        protocol="ntlm" if raw else "negotiate",
                        options=spnego.NegotiateOptions.use_ntlm if raw else spnego.NegotiateOptions.use_negotiate,
                    )
                answer = self._step(token)
        except Exception as error:  # the token is the client's: whatever it breaks is a refusal
            log.debug("NTLM refused: %r", error)
            self._context = None
            raise AuthenticationError(f"NTLM: {error}") from error
        if self._context.complete:
            principal = str(self._context.client_principal or "").rpartition("\\")[2]
            self.user = next((name for name in accounts.passwords if name.lower() == principal.lower()), principal)
        return f"{scheme} {base64.b64encode(answer).decode()}" if answer else None

    def _step(self, token: bytes) -> bytes | None:
        """One step of the acceptor: a wrong channel binding is refused, a missing one not (level Relaxed)."""
        try:
            answer: bytes | None = self._context.step(token, channel_bindings=self._bindings)
        except BadBindingsError as error:
            if "not present" not in str(error):
                raise
            answer = self._context.step(token)
        return answer

    def unwrap(self, body: bytes) -> bytes:
        """Decrypt a ``multipart/encrypted`` body.

        :raises MessageError: when the connection has no NTLM session or the body is malformed.
        """
        if self._context is None or not self._context.complete:
            raise MessageError("an encrypted message on a connection without an NTLM session")
        head, found, sealed = body.partition(_OCTETS)
        tail = _BOUNDARY + b"--\r\n"
        if not found or not sealed.endswith(tail) or not head.startswith(_BOUNDARY + b"\r\n"):
            raise MessageError("a multipart/encrypted body without its parts")
        sealed = sealed[: -len(tail)]
        if len(sealed) < 4 + _SIGNATURE_LENGTH or struct.unpack_from("<i", sealed)[0] != _SIGNATURE_LENGTH:
            raise MessageError("an encrypted message without its signature")
        try:
            message: bytes = self._context.unwrap(sealed[4:]).data
        except Exception as error:  # a wrong signature, or a length that the cipher cannot take
            raise MessageError(f"cannot decrypt: {error}") from error
        _, _, length = head.partition(b"Length=")
        if length.split(b"\r\n", 1)[0].strip() != str(len(message)).encode():
            raise MessageError("the length of an encrypted message is not the one that it says")
        return message

    def wrap(self, message: bytes) -> bytes:
        """Encrypt an answer as a ``multipart/encrypted`` body."""
        return b"".join(
            (
                _BOUNDARY,
                f"\r\n\tContent-Type: {_PROTOCOL}\r\n"
                f"\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length={len(message)}\r\n".encode(),
                _BOUNDARY,
                b"\r\n\t",
                _OCTETS,
                struct.pack("<i", _SIGNATURE_LENGTH),
                self._context.wrap(message, encrypt=True).data,
                _BOUNDARY,
                b"--\r\n",
            )
        )
