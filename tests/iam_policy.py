"""Does the policy in docs/iam-policy.json allow exactly what the playbooks call?

``problems(calls)`` takes records of a rehearsal's ``cloud.log``: bake, up, up again, check, status, down, destroy.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

POLICY = Path(__file__).resolve().parents[1] / "docs/iam-policy.json"

# Calls that need no permission (STS API Reference, GetCallerIdentity).
FREE = frozenset({"sts:GetCallerIdentity"})

# Calls that another permission covers (Amazon S3 User Guide, "Required permissions for Amazon S3 API operations").
COVERED: Mapping[str, str] = {
    "s3:HeadObject": "s3:GetObject",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:ListMultipartUploads": "s3:ListBucketMultipartUploads",
}

# What the playbooks call in cases that a rehearsal without trouble does not have.
RARE: Mapping[str, str] = {
    "ec2:AuthorizeSecurityGroupEgress": "a rule that somebody removed comes back",
    "ec2:CreateLaunchTemplateVersion": "a farm goes on with another image or type",
    "ec2:CreateTags": "EC2 asks for it with every creation that tags; a bake adopts a builder",
    "ec2:DeleteLaunchTemplateVersions": "old versions of a template",
    "ec2:DeleteVolume": "a disk that a machine left behind",
    "ec2:DisableFastLaunch": "an image with Fast Launch is removed",
    "ec2:DisassociateAddress": "an address is on another interface",
    "ec2:EnableFastLaunch": "ami_bake_fast_launch",
    "ec2:ModifyInstanceAttribute": "an attribute of a manager that exists is not as it shall be",
    "ec2:ModifyLaunchTemplate": "the new version becomes the default",
    "ec2:ModifySubnetAttribute": "the subnet of remote nodes gives them public addresses",
    "ec2:ReplaceRoute": "a route to a manager that is gone",
    "ec2:RevokeSecurityGroupEgress": "a rule that somebody added goes",
    "ec2:StartInstances": "a manager that was stopped",
    "iam:CreateServiceLinkedRole": "EC2 makes its roles when an account uses spot, fleets or Fast Launch first",
    "logs:DeleteLogGroup": "log groups with the farm's name",
    "s3:AbortMultipartUpload": "an upload of a large installer that fails: its parts would be billed",
    "s3:DeleteObject": "installers of the controller go with their farm",
    "s3:GetObject": "installers in S3: their pre-signed URLs, and whether one is there",
    "s3:ListBucket": "without it S3 does not tell an object that is missing from one that is forbidden",
    "s3:ListBucketMultipartUploads": "uploads of installers that were interrupted",
    "s3:PutObject": "installers of the controller",
    "servicequotas:GetAWSDefaultServiceQuota": "a quota that nobody ever changed",
}


def allowed(policy: Path = POLICY) -> set[str]:
    """All actions of the policy. ValueError: one has a wildcard, so that it would allow what is not listed."""
    actions: set[str] = set()
    for statement in json.loads(policy.read_text())["Statement"]:
        named = statement["Action"]
        actions |= {named} if isinstance(named, str) else set(named)
    wide = sorted(action for action in actions if "*" in action)
    if wide:
        raise ValueError(f"{policy} allows {', '.join(wide)}: name each action")
    return actions


def called(calls: Iterable[Mapping[str, Any]]) -> set[str]:
    """The permissions that a rehearsal's calls need, also those that were only tried by a dry run."""
    names = {f"{call['service']}:{call['action']}" for call in calls} - FREE
    return {COVERED.get(name, name) for name in names}


def problems(calls: Iterable[Mapping[str, Any]], policy: Path = POLICY) -> list[str]:
    """What is called and not allowed, and what is allowed and neither called nor rare."""
    may, do = allowed(policy), called(calls)
    return [f"{action} is called, but the policy does not allow it" for action in sorted(do - may)] + [
        f"{action} is allowed, but nothing calls it" for action in sorted(may - do - set(RARE))
    ]
