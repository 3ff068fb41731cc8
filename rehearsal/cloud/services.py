"""The few actions of the services beside EC2 and S3 that the playbooks' modules call."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from rehearsal.cloud.catalog import instance_type, parameters
from rehearsal.cloud.errors import ApiError, not_modelled
from rehearsal.cloud.prices import on_demand_price
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


# ------------------------------------------------------------------------------------------------------ Service Quotas

# Amazon EC2 User Guide, "Amazon EC2 instance type quotas".
QUOTA_NAMES = {
    "L-34B43A08": "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests",
    "L-1216C47A": "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
}


def get_service_quota(region: Region, request: ApiRequest) -> Json:
    """The applied value. Only the vCPU quotas of the standard families are known."""
    service, code = str(request.document.get("ServiceCode")), str(request.document.get("QuotaCode"))
    if service != "ec2" or code not in QUOTA_NAMES:
        raise not_modelled(f"the quota {code} of {service}")
    name = region.settings.region
    return {
        "Quota": {
            "ServiceCode": "ec2",
            "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)",
            "QuotaArn": f"arn:aws:servicequotas:{name}:{region.settings.account}:ec2/{code}",
            "QuotaCode": code,
            "QuotaName": QUOTA_NAMES[code],
            "Value": region.vcpu_quotas[code],
            "Unit": "None",
            "Adjustable": True,
            "GlobalQuota": False,
        }
    }


# ----------------------------------------------------------------------------------------------------------- price list

# The filters that leave one product of EC2: Windows with its licence on shared hardware, on-demand.
PRODUCT = {
    "operatingSystem": "Windows",
    "preInstalledSw": "NA",
    "licenseModel": "No License required",
    "tenancy": "Shared",
    "capacitystatus": "Used",
}


def get_products(region: Region, request: ApiRequest) -> Json:
    """One product with its on-demand term (AWS Billing User Guide, "Reading the service price list file")."""
    filters = {entry["Field"]: entry["Value"] for entry in request.document.get("Filters", [])}
    kind = filters.pop("instanceType", "")
    if request.document.get("ServiceCode") != "AmazonEC2" or filters != {
        **PRODUCT,
        "regionCode": region.settings.region,
    }:
        raise not_modelled(f"GetProducts with {json.dumps(request.document)}")
    if instance_type(kind) is None:
        return {"FormatVersion": "aws_v1", "PriceList": []}
    dimension = {"unit": "Hrs", "pricePerUnit": {"USD": f"{on_demand_price(kind):.10f}"}, "beginRange": "0"}
    product = {
        "product": {"productFamily": "Compute Instance", "attributes": {"instanceType": kind, **filters}},
        "serviceCode": "AmazonEC2",
        "terms": {"OnDemand": {"REHEARSAL.TERM": {"priceDimensions": {"REHEARSAL.TERM.RATE": dimension}}}},
    }
    return {"FormatVersion": "aws_v1", "PriceList": [json.dumps(product)]}


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
    ("servicequotas", "GetServiceQuota"): get_service_quota,
    ("pricing", "GetProducts"): get_products,
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
    """The services that speak JSON. ApiError: unknown service or action."""
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
