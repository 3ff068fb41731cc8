"""Reads OpenVPN's files as OpenVPN 2.6 does, and refuses every directive that this project does not use on purpose.

Source: ``options.c`` of OpenVPN 2.6 (``read_config_file``, ``parse_line``, ``check_inline_file``), openvpn(8).
"""

from __future__ import annotations

import re

# A line has at most 255 characters with its end, which is two on Windows (OPTION_LINE_SIZE, read_config_file).
LONGEST_LINE = 253

_NUMBER = r"\d{1,6}"
_ADDRESS = r"\d{1,3}(?:\.\d{1,3}){3}"
_WORD = r"[A-Za-z0-9][A-Za-z0-9.-]*"
_NETWORK = (_ADDRESS, _ADDRESS)

# Directive -> pattern of each word after it. What is not here is unknown or dangerous: script-security, up, plugin,
# management, redirect-gateway, client-to-client, duplicate-cn, persist-remote-ip, comp-lzo, cipher, auth ...
DIRECTIVES: dict[str, tuple[str, ...]] = {
    # both ends
    "dev": ("tun",), "dev-type": ("tun",), "proto": ("udp4",), "tls-version-min": (r"1\.3",),
    "data-ciphers": ("AES-256-GCM:CHACHA20-POLY1305:AES-128-GCM",), "explicit-exit-notify": ("1",), "persist-key": (),
    "persist-tun": (), "verb": ("3",),
    # server
    "port": (_NUMBER,), "topology": ("subnet",), "server": (*_NETWORK, "nopool"),
    "client-config-dir": (f"ccd-{_WORD}",), "ccd-exclusive": (), "route": _NETWORK,
    "push": (rf"route {_ADDRESS} {_ADDRESS}|(?:snd|rcv)buf 524288",),
    "crl-verify": (r"crl\.pem",), "dh": ("none",), "remote-cert-tls": ("server|client",), "keepalive": ("3", "15"),
    "tun-mtu": ("1400",), "sndbuf": ("524288",), "rcvbuf": ("524288",),
    # client
    "client": (), "remote": (_WORD, _NUMBER), "resolv-retry": ("infinite",), "connect-retry": ("1", "5"),
    "connect-timeout": ("4",), "tls-timeout": ("1",), "nobind": (),
    "local": (_ADDRESS,), "lport": ("0",), "allow-recursive-routing": (),
    "verify-x509-name": (_WORD, "name"),
    # a client's entry
    "ifconfig-push": _NETWORK, "iroute": _NETWORK,
}  # fmt: skip
BLOCKS = {"ca", "cert", "key", "tls-crypt-v2"}

_PARAMETER = re.compile(r'"(?P<quoted>[^"\\]*)"|(?P<plain>[^\s"\'\\#;]+)')


def words(line: str) -> list[str]:
    """The words of a line. AssertionError for quoting that this project never writes."""
    found, rest = [], line.strip()
    while rest:
        match = _PARAMETER.match(rest)
        assert match is not None, f"cannot be read: {line!r}"
        found.append(match["plain"] if match["quoted"] is None else match["quoted"])
        rest = rest[match.end() :]
        assert not rest or rest[0].isspace(), f"cannot be read: {line!r}"
        rest = rest.lstrip()
    return found


def parse(text: str) -> tuple[list[list[str]], dict[str, str]]:
    """Directives with their words, and inline blocks."""
    directives: list[list[str]] = []
    blocks: dict[str, str] = {}
    # the C library ends a line at \n only; what else Python calls an end of line would be in the middle of one
    lines = iter(text.split("\n"))
    for line in lines:
        assert len(line) <= LONGEST_LINE, f"OpenVPN reads no line of {len(line)} characters: {line!r}"
        stripped = line.strip()
        if not stripped or stripped[0] in "#;":
            continue
        if stripped.startswith("<") and stripped.endswith(">"):
            name, body = stripped[1:-1], []
            for inner in lines:
                if inner.strip() == f"</{name}>":
                    break
                body.append(inner)
            else:
                raise AssertionError(f"<{name}> is not closed")
            assert name in BLOCKS and name not in blocks, f"unknown or repeated block <{name}>"
            blocks[name] = "\n".join(body)
            continue
        directives.append(words(line))
    return directives, blocks


def known(text: str) -> tuple[list[list[str]], dict[str, str]]:
    """Like ``parse``; AssertionError for a directive that is not known, or known with other words."""
    directives, blocks = parse(text)
    for name, *values in directives:
        assert name in DIRECTIVES, f"unknown or dangerous directive: {name} {values}"
        patterns = DIRECTIVES[name]
        assert len(values) == len(patterns), (name, values)
        for value, pattern in zip(values, patterns, strict=True):
            assert re.fullmatch(pattern, value, re.ASCII), (name, values)
    return directives, blocks
