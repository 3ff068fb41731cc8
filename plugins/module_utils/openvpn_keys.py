# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys for OpenVPN's ``tls-crypt-v2``: they hide and authenticate the very first packet of a handshake.

The format is OpenVPN's own (document ``doc/tls-crypt-v2.txt`` of the OpenVPN source). A server key holds the two keys
Ke and Ka; a client key is 256 random bytes followed by the same bytes wrapped with Ke and Ka, so that the server needs
no list of clients.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
import struct
import time

try:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
except ImportError as error:  # reported by the module, with the package's name
    CRYPTOGRAPHY_ERROR: ImportError | None = error
else:
    CRYPTOGRAPHY_ERROR = None

SERVER_LABEL = "OpenVPN tls-crypt-v2 server key"
CLIENT_LABEL = "OpenVPN tls-crypt-v2 client key"
_SERVER_BYTES = 128
_CLIENT_BYTES = 256
_TAG_BYTES = 32


class KeyFormatError(ValueError):
    """The text is not a key of the wanted kind."""


def _pem(label: str, data: bytes) -> str:
    text = base64.b64encode(data).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def _unpem(label: str, text: str) -> bytes:
    found = re.search(rf"-----BEGIN {re.escape(label)}-----(.*?)-----END {re.escape(label)}-----", text, re.DOTALL)
    if found is None:
        raise KeyFormatError(f"no '{label}' in the file")
    try:
        return base64.b64decode("".join(found[1].split()), validate=True)
    except binascii.Error as error:
        raise KeyFormatError(f"'{label}' is damaged: {error}") from error


def server_key() -> str:
    """Make a new server key (text of the file that ``tls-crypt-v2`` of a server names)."""
    return _pem(SERVER_LABEL, secrets.token_bytes(_SERVER_BYTES))


def _keys_of_server(server: str) -> tuple[bytes, bytes]:
    data = _unpem(SERVER_LABEL, server)
    if len(data) != _SERVER_BYTES:
        raise KeyFormatError(f"a server key has {_SERVER_BYTES} bytes, this one {len(data)}")
    return data[:32], data[64:96]


def _stream(key: bytes, tag: bytes, data: bytes) -> bytes:
    """AES-256-CTR with the first 16 bytes of the tag as its start value."""
    cipher = Cipher(algorithms.AES(key), modes.CTR(tag[:16])).encryptor()
    return cipher.update(data) + cipher.finalize()


def client_key(server: str, *, now: float | None = None) -> str:
    """Make a new client key that the server with the key ``server`` accepts.

    :param server: text of the server's key file.
    :param now: time that is written into the key's metadata (seconds since 1970), default: now.
    :raises KeyFormatError: ``server`` is no server key.
    """
    encrypt, authenticate = _keys_of_server(server)
    secret = secrets.token_bytes(_CLIENT_BYTES)
    metadata = b"\x01" + struct.pack("!Q", int(time.time() if now is None else now))
    length = struct.pack("!H", _TAG_BYTES + _CLIENT_BYTES + len(metadata) + 2)
    tag = hmac.digest(authenticate, length + secret + metadata, "sha256")
    return _pem(CLIENT_LABEL, secret + tag + _stream(encrypt, tag, secret + metadata) + length)


def client_key_matches(server: str, client: str) -> bool:
    """Tell whether the server with the key ``server`` would unwrap the client key ``client``.

    :raises KeyFormatError: one of the two is no key at all.
    """
    encrypt, authenticate = _keys_of_server(server)
    data = _unpem(CLIENT_LABEL, client)
    secret, wrapped = data[:_CLIENT_BYTES], data[_CLIENT_BYTES:]
    if len(wrapped) < _TAG_BYTES + _CLIENT_BYTES + 2:
        raise KeyFormatError("a client key ends too early")
    tag, body, length = wrapped[:_TAG_BYTES], wrapped[_TAG_BYTES:-2], wrapped[-2:]
    if struct.unpack("!H", length)[0] != len(wrapped):
        return False
    plain = _stream(encrypt, tag, body)
    expected = hmac.digest(authenticate, length + plain, "sha256")
    return hmac.compare_digest(tag, expected) and plain[:_CLIENT_BYTES] == secret
