"""The search for secrets finds each of them in every way in which it may be written, and only where it is misplaced."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from rehearsal.proof import ProofError
from rehearsal.secrets_proof import misplaced, places, secrets, spellings

KEY = "-----BEGIN PRIVATE KEY-----\n{0}\n{1}\npublic+{2}==\n-----END PRIVATE KEY-----\n"
VAULT = "vault_ca_passphrase: YuMUuJ9sOyhI\nvault_workstation_password: 9vMaVZGAGUWE\n"
OWN = "machines/workstation/c/Program Files/OpenVPN/config-auto/studio.ovpn"


def key(letter: str) -> str:
    return KEY.format(letter * 64, letter.upper() * 64, letter * 20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "controller/pki/ca.key": key("a"),
        "controller/pki/studio-workstation.key": key("s"),
        "controller/pki/archive/old-1/old.key": key("o"),
        "controller/pki/tls-crypt-v2-server.key": key("t"),
        "controller/pki/aws-gateway.tls-crypt-v2.key": key("g"),
        "controller/keys/studio.pem": key("k"),
        "controller/hosts/i-1/password": "p;9&%Ej$n1<F;!*Vx734\n",
        "inventory/group_vars/all/rehearsal.yml": VAULT,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def known(folder: Path) -> dict[str, set[bytes]]:
    return {name: {each for text in texts for each in spellings(text)} for name, texts in secrets(folder).items()}


def test_every_secret_of_the_farm_is_known_and_no_public_key(folder: Path) -> None:
    found = secrets(folder)
    assert sorted(found) == [
        "keys/studio.pem", "password of i-1", "pki/aws-gateway.tls-crypt-v2.key", "pki/ca.key", "pki/old.key",
        "pki/studio-workstation.key", "pki/tls-crypt-v2-server.key", "vault_ca_passphrase",
        "vault_workstation_password",
    ]  # fmt: skip
    assert found["pki/ca.key"] == ["a" * 64, "A" * 64]


@pytest.mark.parametrize("name", ["pki/ca.key", "password of i-1", "vault_ca_passphrase"])
@pytest.mark.parametrize("before", ["", "x", "xx", "xxx: "])
def test_a_secret_is_found_in_every_spelling(
    folder: Path, known: dict[str, set[bytes]], name: str, before: str
) -> None:
    text = f"{before}{secrets(folder)[name][0]} and more"
    for written in (
        text.encode(), text.encode("utf-16-le"), json.dumps({"x": text}).encode(),
        base64.b64encode(text.encode()), base64.b64encode(text.encode("utf-16-le")),
        f"<S>{text.replace('&', '&amp;').replace('<', '&lt;')}</S>".encode(),
    ):  # fmt: skip
        assert misplaced("logs/1.log", written, known) == [name]


def test_an_end_of_a_tunnel_has_its_own_two_keys_and_no_more(known: dict[str, set[bytes]]) -> None:
    own = (key("s") + key("t")).encode()
    assert misplaced(OWN, own, known) == []
    assert sorted(misplaced("images/ami-1/c/x.ovpn", own, known)) == [
        "pki/studio-workstation.key", "pki/tls-crypt-v2-server.key"
    ]  # fmt: skip
    assert misplaced(OWN, own + key("a").encode(), known) == ["pki/ca.key"]
    assert len(misplaced(OWN, own + key("o").encode(), known)) == 3
    assert misplaced(OWN, own + b"YuMUuJ9sOyhI", known) == ["vault_ca_passphrase"]


def test_the_manager_alone_has_what_it_tells_its_nodes(folder: Path) -> None:
    (folder / "controller/share").mkdir()
    (folder / "controller/share/share.key").write_text(key("h"))
    known = {name: {each.encode() for each in texts} for name, texts in secrets(folder).items()}
    known["vault_share_password"] = {b"3aH1xgUPmVKu"}
    place = "machines/studio-{}/c/ProgramData/RenderFarm/secrets/{}"
    told, certified = b'{"password": "3aH1xgUPmVKu"}', key("h").encode()
    assert misplaced(place.format("manager", "share.json"), told, known) == []
    assert misplaced(place.format("manager", "share.pem"), certified, known) == []
    assert misplaced(place.format("manager", "other.json"), told, known) == ["vault_share_password"]
    assert misplaced(place.format("manager", "share.json"), told + certified, known) == ["share/share.key"]
    assert misplaced(place.format("render-node", "share.json"), told, known) == ["vault_share_password"]


def test_the_controllers_own_folder_and_accounts_are_left_out(folder: Path) -> None:
    for name in ("images/ami-1/host.json", "logs/1.log", "downloads/x.msi"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({"accounts": {"password": "hidden"}, "tasks": "shown"}))
    found = dict(places(folder))
    assert sorted(found) == ["images/ami-1/host.json", "logs/1.log"]
    assert b"hidden" not in found["images/ami-1/host.json"]
    assert b"shown" in found["images/ami-1/host.json"]


def test_a_farm_without_keys_proves_nothing(folder: Path) -> None:
    (folder / "controller/pki/ca.key").unlink()
    with pytest.raises(ProofError, match=r"pki/ca\.key is not known"):
        secrets(folder)


def test_a_secret_that_is_too_short_proves_nothing(folder: Path) -> None:
    (folder / "controller/hosts/i-1/password").write_text("short")
    with pytest.raises(ProofError, match="too short to be looked for: password of i-1"):
        secrets(folder)
