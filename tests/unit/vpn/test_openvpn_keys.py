"""The tls-crypt-v2 keys are those of OpenVPN: format, wrapping, refusals. The real binary judges them too."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from ansible_collections.renderfarm.cloud.plugins.module_utils import openvpn_keys as keys


def test_client_key_fits_its_server_only():
    server, other = keys.server_key(), keys.server_key()
    client = keys.client_key(server)
    assert keys.client_key_matches(server, client)
    assert not keys.client_key_matches(other, client)


def test_sizes_are_those_of_the_program():
    server = keys.server_key()
    assert len(keys._unpem(keys.SERVER_LABEL, server)) == 128
    client = keys._unpem(keys.CLIENT_LABEL, keys.client_key(server, now=1_700_000_000))
    assert len(client) == 256 + 32 + 256 + 9 + 2


@pytest.mark.parametrize("text", ["", "-----BEGIN x-----", "-----BEGIN OpenVPN tls-crypt-v2 server key-----\n!!\n-----END OpenVPN tls-crypt-v2 server key-----"])
def test_damaged_server_key_is_refused(text):
    with pytest.raises(keys.KeyFormatError):
        keys.client_key(text)


def test_short_server_key_is_refused():
    with pytest.raises(keys.KeyFormatError, match="128 bytes"):
        keys.client_key(keys._pem(keys.SERVER_LABEL, b"x" * 64))


def test_changed_client_key_does_not_match():
    server = keys.server_key()
    data = bytearray(keys._unpem(keys.CLIENT_LABEL, keys.client_key(server)))
    data[300] ^= 1
    assert not keys.client_key_matches(server, keys._pem(keys.CLIENT_LABEL, bytes(data)))


@pytest.mark.skipif(shutil.which("openvpn", path="/usr/sbin:/usr/bin") is None, reason="openvpn is not installed")
def test_openvpn_wraps_a_client_key_with_our_server_key(tmp_path):
    """The program makes a client key from our server key, and we accept its wrapping."""
    (tmp_path / "server.key").write_text(keys.server_key())
    subprocess.run(
        ["/usr/sbin/openvpn", "--tls-crypt-v2", str(tmp_path / "server.key"), "--genkey", "tls-crypt-v2-client", str(tmp_path / "client.key")],
        check=True,
        capture_output=True,
        timeout=20,
    )
    assert keys.client_key_matches((tmp_path / "server.key").read_text(), (tmp_path / "client.key").read_text())
