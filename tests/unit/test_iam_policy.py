"""The ready IAM policy names exactly the calls that are made, and limits changes to the farm's own resources."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import iam_policy

RECORD = Path(__file__).parents[1] / "fixtures/calls.json"


@pytest.fixture
def calls() -> list[dict[str, str]]:
    """Every call of a rehearsal of bake, up, up again, check, status, down and destroy, once."""
    return [dict(zip(("service", "action"), name.split(":"), strict=True)) for name in json.loads(RECORD.read_text())]


def test_policy_names_exactly_the_calls(calls: list[dict[str, str]]) -> None:
    assert iam_policy.problems(calls) == []


def test_missing_and_superfluous_actions_are_told(calls: list[dict[str, str]]) -> None:
    more = [*calls, {"service": "ec2", "action": "CreateVolume"}]
    assert iam_policy.problems(more) == ["ec2:CreateVolume is called, but the policy does not allow it"]
    fewer = [call for call in calls if call["action"] != "RunInstances"]
    assert iam_policy.problems(fewer) == ["ec2:RunInstances is allowed, but nothing calls it"]


def test_wildcards_are_refused(tmp_path: Path) -> None:
    wide = tmp_path / "policy.json"
    wide.write_text(json.dumps({"Statement": [{"Action": ["ec2:Describe*"]}]}))
    with pytest.raises(ValueError, match=r"ec2:Describe\*"):
        iam_policy.allowed(wide)


def test_changes_are_limited_to_resources_of_a_farm() -> None:
    statements = json.loads(iam_policy.POLICY.read_text())["Statement"]
    free = {statement["Sid"] for statement in statements if "Condition" not in statement}
    assert free == {"Look", "StockImage", "MadeAlongWithAnInstance"}
    looking = next(statement for statement in statements if statement["Sid"] == "Look")
    reading = ("Describe", "Get")
    assert [action for action in looking["Action"] if not action.split(":")[1].startswith(reading)] == []


def test_every_statement_is_explained() -> None:
    explained = iam_policy.POLICY.with_suffix(".md").read_text()
    statements = json.loads(iam_policy.POLICY.read_text())["Statement"]
    assert [each["Sid"] for each in statements if f"`{each['Sid']}`" not in explained] == []


def test_policy_is_short_enough_for_iam() -> None:
    """A managed policy has at most 6,144 characters without white space (IAM User Guide, "IAM and AWS STS quotas")."""
    assert len("".join(iam_policy.POLICY.read_text().split())) <= 6144
