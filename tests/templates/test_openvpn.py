"""The tunnel's files: every measured decision is there, nothing unknown, and no key where it should not be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.templates.openvpn_files import known
from tests.templates.render import render
from tests.tunnel.network import ADDRESSES
from tests.tunnel.openvpn import CLOUD_SIDE, REMOTE, STUDIO_SIDE, Link, settings, write_client, write_server

LINKS = {"studio": STUDIO_SIDE, "cloud": CLOUD_SIDE, "remote": REMOTE}
MASK = "255.255.255.0"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that say what they are in place of what is in them."""
    folder = tmp_path_factory.mktemp("pki")
    names = {name for link in LINKS.values() for name in (link.server_name, link.client_name)}
    files = ["ca.crt", "crl.pem", "tls-crypt-v2-server.key"]
    files += [f"{name}.{kind}" for name in names for kind in ("crt", "key", "tls-crypt-v2.key")]
    for name in files:
        (folder / name).write_text(f"content of {name}\n")
    return folder


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_every_directive_is_known_and_each_end_has_its_own_secrets_only(link: Link, pki: Path, tmp_path: Path) -> None:
    server = write_server(tmp_path / "server", link, pki)
    client = write_client(tmp_path / "client", link, pki)
    _, served = known(server.read_text())
    _, dialled = known(client.read_text())
    assert served == {
        "ca": "content of ca.crt",
        "cert": f"content of {link.server_name}.crt",
        "key": f"content of {link.server_name}.key",
        "tls-crypt-v2": "content of tls-crypt-v2-server.key",
    }
    assert dialled == {
        "ca": "content of ca.crt",
        "cert": f"content of {link.client_name}.crt",
        "key": f"content of {link.client_name}.key",
        "tls-crypt-v2": f"content of {link.client_name}.tls-crypt-v2.key",
    }
    entries = [path for path in server.parent.rglob("*") if path.is_file() and path.suffix not in (".ovpn", ".pem")]
    assert [path.name for path in entries] == [link.client_name]
    known(entries[0].read_text())


@pytest.mark.parametrize(
    ("link", "network", "far", "pushed"),
    [
        (STUDIO_SIDE, "10.8.0.0", ["10.0.0.0", "10.9.0.0"], ["192.168.1.0"]),
        (CLOUD_SIDE, "10.8.0.0", ["192.168.1.0"], ["10.0.0.0", "10.9.0.0"]),
        (REMOTE, "10.9.0.0", [], ["10.0.0.0", "192.168.1.0", "10.8.0.0"]),
    ],
    ids=LINKS,
)
def test_server_routes_the_far_networks_and_tells_its_own(
    link: Link, network: str, far: list[str], pushed: list[str], pki: Path, tmp_path: Path
) -> None:
    server = write_server(tmp_path, link, pki)
    directives, _ = known(server.read_text())
    assert ["server", network, MASK, "nopool"] in directives
    assert ["client-config-dir", f"ccd-{server.stem}"] in directives
    assert [words[1] for words in directives if words[0] == "route"] == far
    told = [words[1] for words in directives if words[0] == "push"]
    assert [text for text in told if text.startswith("route")] == [f"route {one} {MASK}" for one in pushed]
    entry, _ = known((tmp_path / f"ccd-{server.stem}" / link.client_name).read_text())
    address = ADDRESSES["remote"] if link is REMOTE else "10.8.0.2"
    assert entry == [["ifconfig-push", address, MASK], *(["iroute", one, MASK] for one in far)]


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_the_measured_decisions_are_kept(link: Link, pki: Path, tmp_path: Path) -> None:
    served, _ = known(write_server(tmp_path / "server", link, pki).read_text())
    dialled, _ = known(write_client(tmp_path / "client", link, pki).read_text())
    for words in (
        "ccd-exclusive", "topology subnet", "tun-mtu 1400", "keepalive 3 15", "explicit-exit-notify 1",
        "sndbuf 524288", "rcvbuf 524288", "remote-cert-tls client", "crl-verify crl.pem", "tls-version-min 1.3",
        "persist-tun",
    ):  # fmt: skip
        assert words.split() in served
    port = str(1195 if link is REMOTE else 1194)
    assert ["port", port] in served
    for words in (
        f"remote {link.endpoint} {port}", f"verify-x509-name {link.server_name} name", "remote-cert-tls server",
        "connect-retry 1 5", "connect-timeout 4", "tls-timeout 1", "explicit-exit-notify 1", "tls-version-min 1.3",
        "persist-tun",
    ):  # fmt: skip
        assert words.split() in dialled
    # the client takes the MTU that the server tells
    assert not any(words[0] == "tun-mtu" for words in dialled)


@pytest.mark.parametrize(
    ("role", "template"),
    [("openvpn_server", "server.ovpn.j2"), ("openvpn_server", "client.ccd.j2"), ("vpn_gateway", "gateway.ovpn.j2")],
)
def test_a_note_of_several_lines_stays_a_note(role: str, template: str, pki: Path) -> None:
    variables = settings(STUDIO_SIDE, pki) | {"client": {"name": "aws-gateway", "address": "10.8.0.2"}}
    plain, _ = known(render(role, template, variables))
    noted, _ = known(render(role, template, {**variables, "ansible_managed": "Do not edit\nscript-security 2"}))
    assert noted == plain


def test_a_linux_server_makes_the_far_networks_unreachable_while_there_is_no_tunnel(pki: Path) -> None:
    text = render("openvpn_server", "null-routes.service.j2", settings(STUDIO_SIDE, pki))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if line.startswith("[")] == ["[Unit]", "[Service]", "[Install]"]
    keys = {line.partition("=")[0] for line in lines if not line.startswith("[")}
    assert keys == {
        "Description", "After", "Wants", "Before", "Type", "RemainAfterExit", "ExecStart", "ExecStop", "WantedBy",
    }  # fmt: skip
    made = [line.partition("=")[2] for line in lines if line.startswith("ExecStart=")]
    wanted = ["10.8.0.0/24", "10.0.0.0/24", "10.9.0.0/24"]
    assert made == [f"/bin/ip route replace unreachable {network} metric 9999" for network in wanted]
