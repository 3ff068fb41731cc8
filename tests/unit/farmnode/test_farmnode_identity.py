"""Replacing one machine's identity by another's in plain text."""

from __future__ import annotations

import pytest
from farmnode_fakes import BUILDER, NODE
from hypothesis import given
from hypothesis import strategies as st

from farmnode.errors import FarmNodeError
from farmnode.identity import Identity, identity_from_json, normal_mac, replace_identity


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("06AABBCCDDEE", "06112233445F"),
        ("06aabbccddee", "06112233445f"),
        ("06:aa:bb:cc:dd:ee", "06:11:22:33:44:5f"),
        ("06-AA-BB-CC-DD-EE", "06-11-22-33-44-5F"),
        ("06:Aa:bb:cc:dd:ee", "06:11:22:33:44:5F"),
        ("06AABBCCDDEE0000", "06112233445F0000"),
        ("mac:06:aa:bb:cc:dd:ee", "mac:06:11:22:33:44:5f"),
        ("06:aa:bb:cc:dd:ee:3233", "06:11:22:33:44:5f:3233"),
        ("(06-aa-bb-cc-dd-ee)", "(06-11-22-33-44-5f)"),
        ("EC2AMAZ-BUILD01", "ip-10-0-0-21"),
        ("\\\\ec2amaz-build01\\share", "\\\\ip-10-0-0-21\\share"),
        ("ip-10-0-0-200.eu-central-1.compute.internal", "ip-10-0-0-21.eu-central-1.compute.internal"),
        ("10.0.0.200:3234", "10.0.0.21:3234"),
        ("At 10.0.0.200.", "At 10.0.0.21."),
        ("10.0.0.200 10.0.0.200", "10.0.0.21 10.0.0.21"),
    ],
)
def test_every_notation_is_found_and_kept(text: str, expected: str) -> None:
    changed, count = replace_identity(text, BUILDER, NODE)
    assert changed == expected
    assert count == (2 if text.count("200") == 2 else 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "106AABBCCDDEE",
        "06AABBCCDDEEF",
        "06AABBCCDDEE00001",
        "06:aa-bb:cc-dd:ee",
        "06:aa:bb:cc:dd:ee:ff:01",
        "01:06:aa:bb:cc:dd:ee",
        " 01:06:aa:bb:cc:dd:ee",
        "EC2AMAZ-BUILD012",
        "MY-EC2AMAZ-BUILD01",
        "EC2AMAZ-BUILD01-2",
        "xEC2AMAZ-BUILD01",
        "éEC2AMAZ-BUILD01",
        "10.0.0.20",
        "10.0.0.2001",
        "110.0.0.200",
        "1.10.0.0.200",
        "10.0.0.200.5",
        "10a0b0c200",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert replace_identity(text, BUILDER, NODE) == (text, 0)


def test_mac_without_letters_is_written_in_upper_case() -> None:
    old = Identity("02:00:00:00:00:01", "a", "10.0.0.1")
    assert replace_identity("020000000001 02:00:00:00:00:01", old, NODE) == ("06112233445F 06:11:22:33:44:5F", 2)


def test_what_was_put_in_is_not_replaced_again() -> None:
    old = Identity("06:00:00:00:00:01", "one", "10.0.0.1")
    new = Identity("06:00:00:00:00:02", "ONE-10", "10.0.0.2")
    changed, count = replace_identity("one 10.0.0.1 060000000001", old, new)
    assert (changed, count) == ("ONE-10 10.0.0.2 060000000002", 3)
    swapped = Identity("06:00:00:00:00:03", "two", "10.0.0.3", "three")
    assert replace_identity("two three", swapped, Identity(new.mac, "three", new.address))[0] == "three three"


def test_same_identity_changes_and_counts_nothing() -> None:
    text = "06AABBCCDDEE ip-10-0-0-200 10.0.0.200"
    assert replace_identity(text, BUILDER, Identity(BUILDER.mac, BUILDER.name, BUILDER.address)) == (text, 0)


def test_letters_of_other_alphabets_are_not_taken_for_ours() -> None:
    kelvin = Identity("06:00:00:00:00:01", "k1", "10.0.0.1")
    assert replace_identity("\u212a1", kelvin, NODE) == ("\u212a1", 0)


NOISE = st.sampled_from(
    [" ", ";", "<", "text ", "10.0.0.20 ", "06AABBCCDDEF ", "é ", "\r\n", '="', "/ip-10-0-0-2/", "(", ")"]
)


def _mention(notation: str, upper: bool, identity: Identity) -> str:
    mac = identity.mac.replace(":", notation)
    return mac.upper() if upper else mac


MENTIONS = st.one_of(
    st.tuples(st.sampled_from(["", ":", "-"]), st.booleans()).map(
        lambda style: (_mention(*style, BUILDER), _mention(*style, NODE))
    ),
    st.sampled_from(
        [(BUILDER.name, NODE.name), (BUILDER.computer_name.lower(), NODE.name), (BUILDER.address, NODE.address)]
    ),
)


@given(st.lists(st.one_of(NOISE.map(lambda text: (text, text)), MENTIONS)))
def test_only_mentions_change(pieces: list[tuple[str, str]]) -> None:
    before, after = ("|".join(side) for side in (zip(*pieces, strict=True) if pieces else ([], [])))
    assert replace_identity(before, BUILDER, NODE)[0] == after
    assert replace_identity(after, BUILDER, NODE) == (after, 0)


def test_notations_of_a_mac() -> None:
    assert {normal_mac(text) for text in ("0A0B0C0D0E0F", "0a:0b:0c:0d:0e:0f", "0A-0b-0c-0d-0e-0f")} == {
        "0a:0b:0c:0d:0e:0f"
    }


@pytest.mark.parametrize("mac", ["", "0A0B0C0D0E", "0A0B0C0D0E0F00", "0G0B0C0D0E0F", "0a:0b-0c:0d:0e:0f"])
def test_what_is_no_mac(mac: str) -> None:
    with pytest.raises(FarmNodeError, match="no MAC address"):
        normal_mac(mac)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "must have mac, name and address"),
        ({"mac": "0A0B0C0D0E0F", "name": "a"}, "must have mac, name and address"),
        ({"mac": "0A0B0C0D0E0F", "name": "a", "address": "10.0.0.1", "x": "y"}, "must have"),
        ({"mac": 1, "name": "a", "address": "10.0.0.1"}, "text only"),
        ({"mac": "0A0B0C0D0E0F", "name": "a b", "address": "10.0.0.1"}, "no machine name"),
        ({"mac": "0A0B0C0D0E0F", "name": "", "address": "10.0.0.1"}, "no machine name"),
        ({"mac": "0A0B0C0D0E0F", "name": "a" * 64, "address": "10.0.0.1"}, "no machine name"),
        ({"mac": "0A0B0C0D0E0F", "name": "a", "address": "10.0.0.256"}, "no IPv4 address"),
    ],
)
def test_what_is_no_identity(data: object, said: str) -> None:
    with pytest.raises(FarmNodeError, match=said):
        identity_from_json(data, "identity")


def test_identity_as_json_and_back() -> None:
    assert identity_from_json(BUILDER.as_json(), "x") == BUILDER
    assert "computer_name" not in NODE.as_json()
    assert NODE.handle == "06112233445F0000"


def test_an_identity_keeps_its_mac_in_one_notation() -> None:
    made = Identity("06-AA-BB-CC-DD-EE", "node", "10.0.0.1")
    assert (made.mac, made.handle) == ("06:aa:bb:cc:dd:ee", "06AABBCCDDEE0000")
    assert made == Identity("06aabbccddee", "node", "10.0.0.1")


@pytest.mark.parametrize("pair", ["AF", "af", "09"])
def test_rows_of_pairs_that_are_longer_are_no_mac(pair: str) -> None:
    old = Identity("06:aa:bb:cc:dd:ee", "node", "10.0.0.1")
    for text in (f"{pair}:06:aa:bb:cc:dd:ee", f"x {pair}-06-aa-bb-cc-dd-ee", f"06:aa:bb:cc:dd:ee:{pair}"):
        assert replace_identity(text, old, NODE) == (text, 0)


def test_one_name_may_begin_with_the_other() -> None:
    for name, computer in (("build", "build-1"), ("build-1", "build")):
        old = Identity("06:aa:bb:cc:dd:ee", name, "10.0.0.1", computer)
        assert replace_identity("build build-1 build-10", old, NODE) == (f"{NODE.name} {NODE.name} build-10", 2)
