"""Every failure of AWS is told with what helps."""

from __future__ import annotations

import pytest
from ansible_collections.renderfarm.cloud.plugins.module_utils import aws_errors
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ProfileNotFound
from botocore.parsers import ResponseParserError


def refused(code: str, message: str = "no") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "DescribeInstances")


@pytest.mark.parametrize(
    ("error", "code", "helps"),
    [
        (refused("UnauthorizedOperation"), "UnauthorizedOperation", "IAM"),
        (refused("AuthFailure"), "AuthFailure", "sts get-caller-identity"),
        (refused("RequestExpired"), "RequestExpired", "log in again"),
        (refused("RequestLimitExceeded"), "RequestLimitExceeded", "throttles"),
        (refused("InsufficientInstanceCapacity"), "InsufficientInstanceCapacity", "more instance types"),
        (refused("MaxSpotInstanceCountExceeded"), "MaxSpotInstanceCountExceeded", "L-34B43A08"),
        (refused("AuthFailure.ServiceLinkedRoleCreationNotPermitted"), None, "create-service-linked-role"),
        (NoCredentialsError(), "NoCredentialsError", "AWS_PROFILE"),
        (ProfileNotFound(profile="studio"), "ProfileNotFound", "list-profiles"),
        (EndpointConnectionError(endpoint_url="https://x"), "EndpointConnectionError", "AWS_ENDPOINT_URL"),
        (ResponseParserError("no element found"), "ResponseParserError", "cut off"),
    ],
)
def test_explain_names_what_was_done_the_code_and_a_remedy(error, code, helps):
    text = aws_errors.explain(error, doing="list the instances")
    assert text.startswith("Could not list the instances: ")
    assert "Remedy: " in text and helps in text and text.endswith(".")
    if code:
        assert aws_errors.error_code(error) == code
        assert code in text


def test_a_remedy_that_the_caller_knows_comes_first():
    known = aws_errors.explain(NoCredentialsError(), doing="launch", first="do this")
    assert "Remedy: do this; check the credentials" in known
    assert aws_errors.explain(refused("SomethingNew"), doing="launch", first="do this").endswith("Remedy: do this.")


def test_an_unknown_code_is_told_without_a_remedy():
    text = aws_errors.explain(refused("SomethingNew", "it broke."), doing="launch")
    assert "SomethingNew" in text and "it broke" in text and "Remedy" not in text
