"""The tunnel's files: every directive is known, every measured decision is there, no secret is misplaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.templates.render import render

SETTINGS = {
    "farm_vpn_port": 1194,
    "farm_studio_endpoint": "studio.example.net",
    "farm_lan_network": "192.168.1.0/24",
    "farm_cloud_network": "10.0.0.0/24",
    "farm_tunnel_network": "10.8.0.0/24",
    "farm_remote_network": "10.9.0.0/24",
}
FILES = (
    "ca.crt",
    "studio-workstation.crt",
    "studio-workstation.key",
    "aws-gateway.crt",
    "aws-gateway.key",
    "tls-crypt-v2-server.key",
    "aws-gateway.tls-crypt-v2.key",
)

# Directive -> how many words follow it (OpenVPN 2.6 manual page).
DIRECTIVES = {
    "client": {0}, "port": {1}, "proto": {1}, "dev": {1}, "dev-type": {1}, "topology": {1}, "server": {3},
    "client-config-dir": {1}, "ccd-exclusive": {0}, "route": {2}, "push": {1}, "crl-verify": {1}, "dh": {1},
    "remote-cert-tls": {1}, "tls-version-min": {1}, "data-ciphers": {1}, "keepalive": {2}, "explicit-exit-notify": {1},
    "tun-mtu": {1}, "sndbuf": {1}, "rcvbuf": {1}, "persist-key": {0}, "persist-tun": {0}, "verb": {1}, "remote": {2},
    "resolv-retry": {1}, "connect-retry": {2}, "connect-timeout": {1}, "tls-timeout": {1}, "nobind": {0},
    "verify-x509-name": {2}, "ifconfig-push": {2}, "iroute": {2},
}  # fmt: skip


def parse(text: str) -> tuple[list[list[str]], dict[str, str]]:
    """Read a configuration as OpenVPN does: directives with their words, and inline blocks."""
    directives: list[list[str]] = []
    blocks: dict[str, str] = {}
    lines = iter(text.splitlines())
    for line in lines:
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        if line.startswith("<") and line.endswith(">"):
            name, body = line[1:-1], []
            for inner in lines:
                if inner.strip() == f"</{name}>":
                    break
                body.append(inner)
            else:
                raise AssertionError(f"<{name}> is not closed")
            blocks[name] = "\n".join(body)
            continue
        words, _, quoted = line.partition('"')
        directives.append(words.split() + ([quoted.rstrip('"')] if quoted else []))
    return directives, blocks


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("state")
    (folder / "pki").mkdir()
    for name in FILES:
        (folder / "pki" / name).write_text(f"content of {name}\n")
    return folder


@pytest.mark.parametrize(
    ("role", "template"),
    [("openvpn_server", "server.ovpn.j2"), ("openvpn_server", "gateway.ccd.j2"), ("vpn_gateway", "gateway.ovpn.j2")],
)
def test_every_directive_is_known(role, template, pki):
    directives, blocks = parse(render(role, template, SETTINGS | {"farm_state_dir": str(pki)}))
    assert directives
    for name, *words in directives:
        assert len(words) in DIRECTIVES[name], (name, words)
    assert set(blocks) <= {"ca", "cert", "key", "tls-crypt-v2"}


def test_server_follows_the_measured_decisions(pki):
    directives, blocks = parse(render("openvpn_server", "server.ovpn.j2", SETTINGS | {"farm_state_dir": str(pki)}))
    assert ["server", "10.8.0.0", "255.255.255.0", "nopool"] in directives
    assert ["ccd-exclusive"] in directives
    assert ["route", "10.0.0.0", "255.255.255.0"] in directives
    assert ["route", "10.9.0.0", "255.255.255.0"] in directives
    assert ["push", "route 192.168.1.0 255.255.255.0"] in directives
    assert ["tun-mtu", "1400"] in directives
    assert ["keepalive", "3", "15"] in directives
    assert blocks["key"] == "content of studio-workstation.key"
    assert blocks["tls-crypt-v2"] == "content of tls-crypt-v2-server.key"


def test_gateway_accepts_the_studio_only(pki):
    directives, blocks = parse(render("vpn_gateway", "gateway.ovpn.j2", SETTINGS | {"farm_state_dir": str(pki)}))
    assert ["remote", "studio.example.net", "1194"] in directives
    assert ["verify-x509-name", "studio-workstation", "name"] in directives
    assert ["remote-cert-tls", "server"] in directives
    assert blocks["key"] == "content of aws-gateway.key"
    assert "server.key" not in "".join(blocks.values())


def test_gateway_entry_gives_a_fixed_address_and_both_networks(pki):
    directives, _ = parse(render("openvpn_server", "gateway.ccd.j2", SETTINGS | {"farm_state_dir": str(pki)}))
    assert directives == [
        ["ifconfig-push", "10.8.0.2", "255.255.255.0"],
        ["iroute", "10.0.0.0", "255.255.255.0"],
        ["iroute", "10.9.0.0", "255.255.255.0"],
    ]
