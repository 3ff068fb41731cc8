"""No input that the roles allow makes OpenVPN's files say anything that the project does not mean.

Whatever the settings are, they are either refused, or the files hold exactly the directives that belong there.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.renderfarm.cloud.plugins.module_utils.tunnel_settings import client_problems, server_problems
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from tests.templates.openvpn_files import known
from tests.templates.render import PROJECT, render

# What somebody might write by mistake, or to make OpenVPN run a program.
HOSTILE = [
    "", " ", "a b", "a\nscript-security 2\nup /bin/sh", "a\r\nplugin x.dll", "a\u2028up x", "a\x0bup x", "a\x85up x",
    'a" "b', "a'b", "a\\b", "a;b", "a#b", "</ca>", "<up>", "../ca", "CON", "nul.txt", "studio.ovpn", "-a", "a-",
    "{{ lookup('pipe', 'id') }}", "{% raw %}", "%windir%", "$(id)", "\u0661\u0662", "\uff11", "a" * 64, "\x00",
    "\ufeffa",
    "10.8.0.0/24\nup x", "10.8.0.0/255.255.255.0", "10.8.0.0", "010.8.0.0/24", "0.0.0.0/0", "10.8.0.1/24", "::/0",
    "1194 tcp", "1194\nredirect-gateway", "0", "65536", "-1", "1e3", "1_194",
]  # fmt: skip

labels = st.from_regex(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,20}[A-Za-z0-9])?", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=2).map(".".join)
ports = st.integers(1, 65535) | st.integers(1, 65535).map(str)
addresses = st.ip_addresses(v=4).map(str)
networks = st.builds(
    lambda number, prefix: f"{number // 256 % 224}.{number % 256}.0.0/{prefix}",
    st.integers(256, 57343),
    st.integers(16, 24),
)
anything: st.SearchStrategy[Any] = (
    st.sampled_from(HOSTILE) | st.text(max_size=20) | st.integers(-2, 70000) | st.none() | st.booleans()
)


def or_anything(sane: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly sane, so that the whole is sane often enough."""
    return st.one_of(sane, sane, sane, sane, sane, sane, sane, anything)


sane_servers = st.builds(
    lambda instance, name, port, tunnel, own, clients: {
        "instance": instance,
        "name": name,
        "port": port,
        "network": f"10.{tunnel}.0.0/24",
        "networks": own,
        "clients": [
            {"name": client, "address": f"10.{tunnel}.0.{number + 2}", "networks": far}
            for number, (client, far) in enumerate(clients)
        ],
    },
    names, names, ports, st.integers(0, 255), st.lists(networks, max_size=3),
    st.lists(st.tuples(names, st.lists(networks, max_size=2)), max_size=3),
)  # fmt: skip
any_servers = st.fixed_dictionaries(
    {
        "instance": or_anything(names),
        "name": or_anything(names),
        "port": or_anything(ports),
        "network": or_anything(st.just("10.8.0.0/24")),
        "networks": or_anything(st.lists(or_anything(networks), max_size=2)),
        "clients": or_anything(
            st.lists(
                st.fixed_dictionaries(
                    {
                        "name": or_anything(names),
                        "address": or_anything(st.sampled_from(["10.8.0.2", "10.8.0.3"])),
                        "networks": or_anything(st.lists(or_anything(networks), max_size=2)),
                    }
                ),
                max_size=2,
            )
        ),
    }
)
sane_clients = st.fixed_dictionaries(
    {"instance": names, "name": names, "server_name": names, "endpoint": names | addresses, "port": ports}
)
any_clients = st.fixed_dictionaries(
    {
        "instance": or_anything(names),
        "name": or_anything(names),
        "server_name": or_anything(names),
        "endpoint": or_anything(names | addresses),
        "port": or_anything(ports),
    }
)
many = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much])


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pki")


def with_files(pki: Path, name: str) -> None:
    for file in ("ca.crt", f"{name}.crt", f"{name}.key", "tls-crypt-v2-server.key", f"{name}.tls-crypt-v2.key"):
        (pki / file).write_text("content\n")


def counted(text: str) -> Counter[str]:
    directives, _ = known(text)
    return Counter(name for name, *_ in directives)


SERVER_ONCE = (
    "port proto dev dev-type topology server client-config-dir ccd-exclusive crl-verify dh remote-cert-tls "
    "tls-version-min data-ciphers keepalive explicit-exit-notify tun-mtu sndbuf rcvbuf persist-key persist-tun verb"
)
CLIENT_ONCE = (
    "client dev dev-type proto remote resolv-retry connect-retry connect-timeout tls-timeout nobind remote-cert-tls "
    "verify-x509-name tls-version-min data-ciphers explicit-exit-notify persist-key persist-tun verb"
)


def check_server(given: dict[str, Any], pki: Path) -> None:
    with_files(pki, given["name"])
    variables = {f"openvpn_server_{name}": value for name, value in given.items()}
    variables["openvpn_server_pki_dir"] = str(pki)
    far = [network for client in given["clients"] for network in client["networks"]]
    expected = Counter({**dict.fromkeys(SERVER_ONCE.split(), 1), "route": len(far), "push": 2 + len(given["networks"])})
    assert counted(render("openvpn_server", "server.ovpn.j2", variables)) == expected
    check_null_routes(render("openvpn_server", "null-routes.service.j2", variables), 1 + len(far))
    for client in given["clients"]:
        text = render("openvpn_server", "client.ccd.j2", {**variables, "client": client})
        assert counted(text) == Counter({"ifconfig-push": 1, "iroute": len(client["networks"])})


UNIT = re.compile(
    r"#.*|\[(?:Unit|Service|Install)\]"
    r"|Description=Render farm: nothing for the far side of the tunnel [A-Za-z0-9.-]+ goes to the internet"
    r"|(?:After|Wants)=network-online\.target|Before=openvpn-server@[A-Za-z0-9.-]+\.service|Type=oneshot"
    r"|RemainAfterExit=true|WantedBy=multi-user\.target"
    r"|(?:ExecStart=/bin/ip route replace|ExecStop=-/bin/ip route del) unreachable [0-9.]+/[0-9]+ metric 9999"
)


def check_null_routes(text: str, networks: int) -> None:
    """systemd ends a line at \\n only, and a backslash before it joins the next one: systemd.syntax(7)."""
    lines = [line for line in text.split("\n") if line.strip()]
    assert [line for line in lines if not UNIT.fullmatch(line)] == []
    assert sum(line.startswith("Exec") for line in lines) == 2 * networks


def check_client(given: dict[str, Any], pki: Path) -> None:
    with_files(pki, given["name"])
    variables = {f"vpn_gateway_{name}": value for name, value in given.items()}
    variables["vpn_gateway_pki_dir"] = str(pki)
    text = render("vpn_gateway", "gateway.ovpn.j2", variables)
    assert counted(text) == Counter(dict.fromkeys(CLIENT_ONCE.split(), 1))


@given(sane_servers)
@many
def test_a_sane_server_is_written(pki: Path, given: dict[str, Any]) -> None:
    assume(not server_problems(given))
    check_server(given, pki)


@given(sane_clients)
@example({
    "instance": "studio", "name": "a" * 63, "server_name": "b" * 63, "port": 65535,
    "endpoint": ".".join(["e" * 63, "x" * 63, "a" * 63, "m" * 61]),
})  # fmt: skip
@many
def test_a_sane_client_is_written(pki: Path, given: dict[str, Any]) -> None:
    assume(not client_problems(given))
    check_client(given, pki)


@given(any_servers)
@settings(parent=many, max_examples=300)
def test_a_server_is_refused_or_written_as_meant(pki: Path, given: dict[str, Any]) -> None:
    if not server_problems(given):
        check_server(given, pki)


@given(any_clients)
@settings(parent=many, max_examples=300)
def test_a_client_is_refused_or_written_as_meant(pki: Path, given: dict[str, Any]) -> None:
    if not client_problems(given):
        check_client(given, pki)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("field", ["instance", "name", "server_name", "endpoint", "port"])
def test_each_hostile_text_is_refused_or_harmless_in_a_client(pki: Path, field: str, text: str) -> None:
    sane = {"instance": "studio", "name": "aws-gateway", "server_name": "ws", "endpoint": "example.net", "port": 1194}
    if not client_problems({**sane, field: text}):
        check_client({**sane, field: text}, pki)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("field", ["instance", "name", "port", "network", "networks", "client name", "address", "far"])
def test_each_hostile_text_is_refused_or_harmless_in_a_server(pki: Path, field: str, text: str) -> None:
    client: dict[str, Any] = {"name": "aws-gateway", "address": "10.8.0.2", "networks": ["10.0.0.0/24"]}
    sane: dict[str, Any] = {
        "instance": "studio", "name": "ws", "port": 1194, "network": "10.8.0.0/24", "networks": ["192.168.1.0/24"],
        "clients": [client],
    }  # fmt: skip
    match field:
        case "networks":
            sane["networks"] = [text]
        case "client name":
            client["name"] = text
        case "address":
            client["address"] = text
        case "far":
            client["networks"] = [text]
        case _:
            sane[field] = text
    if not server_problems(sane):
        check_server(sane, pki)


# Template -> the variables that it takes its text from; the folder of the keys is only ever a path on the controller.
OPTIONS = {
    ("openvpn_server", "server.ovpn.j2"): {"instance", "name", "port", "network", "networks", "clients", "pki_dir"},
    ("openvpn_server", "client.ccd.j2"): {"network"},
    ("openvpn_server", "null-routes.service.j2"): {"instance", "network", "clients"},
    ("vpn_gateway", "gateway.ovpn.j2"): {"name", "server_name", "endpoint", "port", "pki_dir"},
}


def test_every_option_of_every_template_is_tried() -> None:
    """The tests of this file vary these options and no others."""
    found = {}
    for role in ("openvpn_server", "vpn_gateway"):
        for path in (PROJECT / "roles" / role / "templates").iterdir():
            text = path.read_text()
            found[role, path.name] = set(re.findall(rf"\b{role}_(\w+)", text))
    assert found == OPTIONS
