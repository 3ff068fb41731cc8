# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Say what an exception of botocore means for the user and what to do about it.

Works on names and attributes, so that it needs no botocore to be imported or tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

POLICY_FILE = "docs/iam-policy.json"
_ALLOW = f"allow the action for this user or role (IAM; {POLICY_FILE} has all that the farm needs)"
_CHECK_CREDENTIALS = (
    "check the credentials that botocore finds (AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "~/.aws/credentials) with `aws sts get-caller-identity`"
)
_LOG_IN_AGAIN = "the temporary credentials are used up: log in again (`aws sso login`) or fetch new ones"
_NETWORK = (
    "check the network, the proxy settings (HTTPS_PROXY, NO_PROXY) and, if it is set, AWS_ENDPOINT_URL; "
    "https://health.aws.amazon.com/health/status tells whether AWS itself is disturbed"
)

# Codes: EC2 API Reference, "Error codes for the Amazon EC2 API"; class names: botocore.exceptions.
_REMEDIES: Mapping[str, str] = {
    "AccessDenied": _ALLOW,
    "AccessDeniedException": _ALLOW,
    "UnauthorizedOperation": f"{_ALLOW}; `aws sts decode-authorization-message` explains an encoded message",
    "AuthFailure": _CHECK_CREDENTIALS,
    "InvalidClientTokenId": _CHECK_CREDENTIALS,
    "SignatureDoesNotMatch": _CHECK_CREDENTIALS + "; the clock of this machine must be right, too",
    "IncompleteSignature": _CHECK_CREDENTIALS,
    "UnrecognizedClientException": _CHECK_CREDENTIALS,
    "ExpiredToken": _LOG_IN_AGAIN,
    "ExpiredTokenException": _LOG_IN_AGAIN,
    "RequestExpired": _LOG_IN_AGAIN + "; the clock of this machine must be right, too",
    "OptInRequired": "enable the region or the service for this account (AWS console, Account, AWS Regions)",
    "Blocked": "the account is blocked: contact AWS support",
    "PendingVerification": "the account is still being verified by AWS: try again later or contact AWS support",
    "RequestLimitExceeded": "EC2 throttles this account: wait a minute, then run it again",
    "Throttling": "EC2 throttles this account: wait a minute, then run it again",
    "InternalError": "EC2 had an error of its own: run it again",
    "Unavailable": "EC2 is overloaded: run it again in a minute",
    "ServiceUnavailable": "EC2 is overloaded: run it again in a minute",
    "InsufficientInstanceCapacity": "AWS has no such machine free now: name more instance types or zones, "
    "or try again in some minutes",
    "UnfulfillableCapacity": "AWS has no such machine free now: name more instance types or zones, "
    "or try again in some minutes",
    "InsufficientCapacityOnHost": "name more instance types or zones, or try again in some minutes",
    "MaxSpotInstanceCountExceeded": "the account's vCPU quota for spot is used up: ask for more in Service Quotas "
    "(L-34B43A08, All Standard Spot Instance Requests) or wish for fewer nodes",
    "VcpuLimitExceeded": "the account's vCPU quota is used up: ask for more in Service Quotas "
    "(L-1216C47A, Running On-Demand Standard instances) or wish for fewer nodes",
    "InstanceLimitExceeded": "the account's quota is used up: ask for more in Service Quotas or wish for fewer nodes",
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted": "have an administrator run once "
    "`aws iam create-service-linked-role --aws-service-name spot.amazonaws.com`",
    "SpotMaxPriceTooLow": "raise max_price or leave it out (then the on-demand price is the limit)",
    "Unsupported": "this type is not offered in this zone: name other instance types or zones",
    "InvalidFleetConfiguration": "correct the launch template or the instance types: they do not fit together "
    "(architecture, zone or subnet)",
    "InsufficientFreeAddressesInSubnet": "the subnet is full: wish for fewer nodes or use a larger cloud network",
    "InvalidLaunchTemplateName.NotFoundException": "create the launch template first (farm-up.yml does)",
    "InvalidLaunchTemplateId.NotFound": "create the launch template first (farm-up.yml does)",
    "InvalidAMIID.NotFound": "the image does not exist (any more): run bake-ami.yml",
    "InvalidAMIID.Unavailable": "the image is not ready yet, or gone: wait for it or run bake-ami.yml again",
    "OperationNotPermitted": "an instance has termination protection: switch it off in the EC2 console first",
    "NoCredentialsError": _CHECK_CREDENTIALS,
    "PartialCredentialsError": _CHECK_CREDENTIALS,
    "CredentialRetrievalError": _CHECK_CREDENTIALS,
    "TokenRetrievalError": _LOG_IN_AGAIN,
    "UnauthorizedSSOTokenError": _LOG_IN_AGAIN,
    "SSOTokenLoadError": _LOG_IN_AGAIN,
    "ProfileNotFound": "name a profile that `aws configure list-profiles` shows",
    "ConfigParseError": "correct the file that the message names",
    "NoRegionError": "name the region",
    "EndpointConnectionError": _NETWORK,
    "ConnectTimeoutError": _NETWORK,
    "ReadTimeoutError": _NETWORK,
    "ConnectionClosedError": _NETWORK,
    "ProxyConnectionError": _NETWORK,
    "HTTPClientError": _NETWORK,
    "SSLError": _NETWORK + "; a proxy that opens TLS needs AWS_CA_BUNDLE",
    "IncompleteReadError": "the answer was cut off: run it again, then " + _NETWORK,
    "ResponseStreamingError": "the answer was cut off: run it again, then " + _NETWORK,
    "ResponseParserError": "the answer is no answer of EC2 (cut off, or by a proxy in between): run it again, then "
    + _NETWORK,
    "IncompleteAnswer": "run it again, then " + _NETWORK,
    "PaginationError": "the pages of the answer go in circles: run it again",
}


def error_code(error: BaseException) -> str:
    """The API's error code (``RequestLimitExceeded``) or, when the API was not reached, the exception's class name."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        details: Any = response.get("Error", {})
        if isinstance(details, Mapping) and details.get("Code"):
            return str(details["Code"])
    return type(error).__name__


def remedy(code: str) -> str:
    """What to do about an error code; empty when nothing better than the API's own text is known."""
    return _REMEDIES.get(code, "")


def explain(error: BaseException, *, doing: str, first: str = "") -> str:
    """One line for the user: what was being done, what came back, what helps.

    ``doing`` completes "Could not ...", e.g. ``list the instances of region eu-central-1``. ``first`` is a remedy that
    the caller knows, to be tried before that of the error code.
    """
    code = error_code(error)
    text = f"Could not {doing}: {str(error).strip().rstrip('.') or code}"
    if code not in text:
        text += f" ({code})"
    advice = "; ".join(filter(None, (first, remedy(code) or remedy(type(error).__name__))))
    return f"{text}. Remedy: {advice}." if advice else f"{text}."
