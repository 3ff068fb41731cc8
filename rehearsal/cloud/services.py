"""The few actions of SSM, STS, IAM and CloudWatch Logs that the playbooks' modules call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rehearsal.cloud.catalog import parameters
from rehearsal.cloud.errors import ApiError, not_modelled
from rehearsal.cloud.protocol import ApiRequest, request_id
from rehearsal.cloud.region import Region

Json = dict[str, Any]


def _parameter(region: Region, name: str, value: str) -> Json:
    return {
        "Name": name,
        "Type": "String",
        "Value": value,
        "Version": 1,
        "LastModifiedDate": 1760400000.0,
        "ARN": f"arn:aws:ssm:{region.settings.region}::parameter{name}",
        "DataType": "aws:ec2:image",
    }


def get_parameter(region: Region, request: ApiRequest) -> Json:
    name = str(request.document.get("Name", ""))
    known = parameters(region.settings.region)
    if name not in known:
        raise ApiError("ParameterNotFound", f"Parameter {name} not found: the rehearsal has {', '.join(known)}")
    return {"Parameter": _parameter(region, name, known[name])}


def get_parameters(region: Region, request: ApiRequest) -> Json:
    known = parameters(region.settings.region)
    names = list(request.document.get("Names", []))
    return {
        "Parameters": [_parameter(region, name, known[name]) for name in names if name in known],
        "InvalidParameters": [name for name in names if name not in known],
    }


def get_parameters_by_path(region: Region, request: ApiRequest) -> Json:
    path = str(request.document.get("Path", "")).rstrip("/") + "/"
    known = parameters(region.settings.region)
    return {"Parameters": [_parameter(region, name, known[name]) for name in known if name.startswith(path)]}


SSM: dict[str, Callable[[Region, ApiRequest], Json]] = {
    "GetParameter": get_parameter,
    "GetParameters": get_parameters,
    "GetParametersByPath": get_parameters_by_path,
}


# ------------------------------------------------------------------------------------------------------ CloudWatch Logs


def describe_log_groups(region: Region, request: ApiRequest) -> Json:
    """All groups whose names begin with a prefix, on one page."""
    strange = sorted(set(request.document) - {"logGroupNamePrefix"})
    if strange:
        raise not_modelled(f"the parameter {strange[0]} of logs:DescribeLogGroups")
    prefix = str(request.document.get("logGroupNamePrefix", ""))
    groups = [(name, size) for name, size in sorted(region.log_groups.items()) if name.startswith(prefix)]
    return {"logGroups": [{"logGroupName": name, "storedBytes": size} for name, size in groups]}


def delete_log_group(region: Region, request: ApiRequest) -> Json:
    name = str(request.document.get("logGroupName", ""))
    if name not in region.log_groups:
        raise ApiError("ResourceNotFoundException", "The specified log group does not exist.")
    del region.log_groups[name]
    return {}


JSON_ACTIONS: dict[tuple[str, str], Callable[[Region, ApiRequest], Json]] = {
    **{("ssm", name): handler for name, handler in SSM.items()},
    ("logs", "DeleteLogGroup"): delete_log_group,
    ("logs", "DescribeLogGroups"): describe_log_groups,
}


def get_caller_identity(region: Region) -> str:
    account = region.settings.account
    return (
        '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
        f"<Arn>arn:aws:iam::{account}:user/rehearsal</Arn><UserId>AIDAREHEARSAL0000000</UserId>"
        f"<Account>{account}</Account></GetCallerIdentityResult>"
        f"<ResponseMetadata><RequestId>{request_id()}</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
    )


def list_account_aliases(region: Region) -> str:
    return (
        '<ListAccountAliasesResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><ListAccountAliasesResult>'
        "<IsTruncated>false</IsTruncated><AccountAliases><member>rehearsal</member></AccountAliases>"
        "</ListAccountAliasesResult>"
        f"<ResponseMetadata><RequestId>{request_id()}</RequestId></ResponseMetadata></ListAccountAliasesResponse>"
    )


QUERY: dict[tuple[str, str], Callable[[Region], str]] = {
    ("sts", "GetCallerIdentity"): get_caller_identity,
    ("iam", "ListAccountAliases"): list_account_aliases,
}


def handle_json(region: Region, request: ApiRequest) -> Json:
    """SSM and CloudWatch Logs. ApiError: unknown service or action."""
    handler = JSON_ACTIONS.get((request.service, request.action))
    if handler is None:
        raise not_modelled(f"{request.service}:{request.action}")
    return handler(region, request)


def handle_query(region: Region, request: ApiRequest) -> str:
    """STS and IAM. ApiError: unknown service or action."""
    handler = QUERY.get((request.service, request.action))
    if handler is None:
        raise not_modelled(f"{request.service}:{request.action}")
    return handler(region)
