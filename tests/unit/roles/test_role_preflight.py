"""What the roles refuse before anything is created."""

from __future__ import annotations

import pytest

from tests.templates.render import accepts

BASE = "/aws/service/ami-windows-latest/Windows_Server-{}-English-Full-Base"


@pytest.mark.parametrize(
    ("password", "good"),
    [
        ("Brook-7-candle-Oak", True),
        ("ABCDEFGHIJK1a", True),
        ("only-small-letters", False),
        ("SMALL is missing", False),
        ("Brook 7 candle", False),
        ("Bröok-7-candle", False),
        ("Brook-7", False),
        ("", False),
    ],
)
def test_password_of_the_share_suits_windows(password: str, good: bool) -> None:
    settings = {"backburner_manager_share_password": password}
    assert accepts("backburner_manager", "preflight", "Check the password of the share", settings) is good


@pytest.mark.parametrize(
    ("base", "sysprep", "good"),
    [
        (BASE.format(2022), False, True),
        (BASE.format(2025), False, False),
        (BASE.format(2025), True, True),
        ("/studio/windows", False, True),
    ],
)
def test_clones_that_refuse_each_other_are_not_made(base: str, sysprep: bool, good: bool) -> None:
    task = "Check that clones of the base image may log in to each other"
    assert accepts("ami_bake", "preflight", task, {"farm_base_image": base, "ami_bake_sysprep": sysprep}) is good
