"""Launch templates and their versions."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence

from rehearsal.cloud.actions import action, check_fields
from rehearsal.cloud.errors import ApiError, combination, invalid, missing, unknown
from rehearsal.cloud.filters import Extractors, page, select
from rehearsal.cloud.protocol import timestamp
from rehearsal.cloud.records import Params, Template, TemplateVersion
from rehearsal.cloud.region import Region, tag_specifications

NAME = re.compile(r"[A-Za-z0-9().\-/_]{3,128}")
USER_DATA_LIMIT = 16 * 1024  # bytes before base64; EC2 API Reference, RunInstances, parameter UserData
# What of the template data a launch honours. Everything else is refused when the template is made.
DATA_FIELDS = frozenset(
    {
        "BlockDeviceMappings",
        "DisableApiStop",
        "DisableApiTermination",
        "EbsOptimized",
        "ImageId",
        "InstanceInitiatedShutdownBehavior",
        "InstanceMarketOptions",
        "InstanceType",
        "KeyName",
        "MetadataOptions",
        "Monitoring",
        "NetworkInterfaces",
        "Placement",
        "SecurityGroupIds",
        "TagSpecifications",
        "UserData",
    }
)
TAGGABLE = frozenset({"instance", "volume", "network-interface", "spot-instances-request"})


def check_user_data(text: str | None) -> None:
    """ApiError: not base64, or more than 16 KiB."""
    if text is None:
        return
    try:
        size = len(base64.b64decode(text, validate=True))
    except binascii.Error:
        raise ApiError("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.") from None
    if size > USER_DATA_LIMIT:
        raise invalid(f"User data is limited to {USER_DATA_LIMIT} bytes")


def check_data(data: Params) -> None:
    check_fields("LaunchTemplateData", data, DATA_FIELDS)
    tag_specifications(data.get("TagSpecifications", []), TAGGABLE)
    check_user_data(data.get("UserData"))


def find(region: Region, reference: Params) -> Template:
    """By LaunchTemplateId or LaunchTemplateName. ApiError: neither or both, or no such template."""
    identifier, name = reference.get("LaunchTemplateId"), reference.get("LaunchTemplateName")
    if identifier and name:
        raise combination("Either provide launch template ID or launch template name, not both.")
    if identifier:
        if identifier not in region.templates:
            raise unknown("lt", identifier)
        return region.templates[identifier]
    if not name:
        raise missing("LaunchTemplateId")
    for template in region.templates.values():
        if template.name == name:
            return template
    raise ApiError(
        "InvalidLaunchTemplateName.NotFoundException", f"The specified launch template, with template name {name}, "
        "does not exist."
    )  # fmt: skip


def version_of(template: Template, wanted: str | None) -> TemplateVersion:
    """``$Default``, ``$Latest`` or a number."""
    word = (wanted or "$Default").lower()
    if word == "$default":
        return template.versions[template.default]
    if word == "$latest":
        return template.versions[template.latest]
    if word.isdigit() and int(word) in template.versions:
        return template.versions[int(word)]
    raise ApiError(
        "InvalidLaunchTemplateId.VersionNotFound",
        f"Could not find the specified version {wanted} for the launch template with ID {template.id}.",
    )


def _describe(region: Region, template: Template) -> Params:
    return {
        "LaunchTemplateId": template.id,
        "LaunchTemplateName": template.name,
        "CreateTime": template.create_time,
        "CreatedBy": _creator(region),
        "DefaultVersionNumber": template.default,
        "LatestVersionNumber": template.latest,
        "Tags": region.tag_list(template.id),
    }


def _describe_version(region: Region, template: Template, version: TemplateVersion) -> Params:
    return {
        "LaunchTemplateId": template.id,
        "LaunchTemplateName": template.name,
        "VersionNumber": version.number,
        "VersionDescription": version.description or None,
        "CreateTime": version.create_time,
        "CreatedBy": _creator(region),
        "DefaultVersion": version.number == template.default,
        "LaunchTemplateData": version.data,
    }


def _creator(region: Region) -> str:
    return f"arn:aws:iam::{region.settings.account}:user/rehearsal"


@action(
    "CreateLaunchTemplate",
    "LaunchTemplateName",
    "LaunchTemplateData",
    optional=("VersionDescription", "TagSpecifications", "ClientToken"),
)
def create_launch_template(region: Region, params: Params) -> Params:
    """The tags of TagSpecifications belong to the template, those inside the data to what is launched from it."""
    known = region.remembered("CreateLaunchTemplate", params)
    if known is None:
        name = params["LaunchTemplateName"]
        if not NAME.fullmatch(name):
            raise ApiError("InvalidLaunchTemplateName.MalformedException", f"Launch template name {name} is invalid")
        if any(template.name == name for template in region.templates.values()):
            raise ApiError("InvalidLaunchTemplateName.AlreadyExistsException", "Launch template name already in use.")
        check_data(params["LaunchTemplateData"])
        tags = tag_specifications(params.get("TagSpecifications", []), {"launch-template"})
        first = TemplateVersion(1, params["LaunchTemplateData"], region.now(), params.get("VersionDescription", ""))
        template = Template(region.new_id("lt"), name, region.now(), {1: first})
        region.templates[template.id] = template
        region.tag(template.id, tags.get("launch-template", {}))
        region.remember("CreateLaunchTemplate", params, template.id)
        known = template.id
    return {"LaunchTemplate": _describe(region, region.templates[known])}


@action(
    "CreateLaunchTemplateVersion",
    "LaunchTemplateData",
    optional=("LaunchTemplateId", "LaunchTemplateName", "SourceVersion", "VersionDescription", "ClientToken"),
)
def create_launch_template_version(region: Region, params: Params) -> Params:
    """With SourceVersion the new version is the old one with the given fields replaced."""
    template = find(region, params)
    number = region.remembered("CreateLaunchTemplateVersion", params)
    if number is None:
        check_data(params["LaunchTemplateData"])
        base = version_of(template, params["SourceVersion"]).data if "SourceVersion" in params else {}
        data = {**base, **params["LaunchTemplateData"]}
        number = template.latest + 1
        template.versions[number] = TemplateVersion(number, data, region.now(), params.get("VersionDescription", ""))
        template.latest = number
        region.remember("CreateLaunchTemplateVersion", params, number)
    return {"LaunchTemplateVersion": _describe_version(region, template, template.versions[number])}


@action("ModifyLaunchTemplate", optional=("LaunchTemplateId", "LaunchTemplateName", "DefaultVersion", "ClientToken"))
def modify_launch_template(region: Region, params: Params) -> Params:
    template = find(region, params)
    if "DefaultVersion" in params:
        template.default = version_of(template, params["DefaultVersion"]).number
    return {"LaunchTemplate": _describe(region, template)}


@action("DeleteLaunchTemplate", optional=("LaunchTemplateId", "LaunchTemplateName"))
def delete_launch_template(region: Region, params: Params) -> Params:
    template = find(region, params)
    shown = _describe(region, template)
    del region.templates[template.id]
    region.forget_tags(template.id)
    return {"LaunchTemplate": shown}


@action("DeleteLaunchTemplateVersions", "Versions", optional=("LaunchTemplateId", "LaunchTemplateName"))
def delete_launch_template_versions(region: Region, params: Params) -> Params:
    template = find(region, params)
    deleted: list[Params] = []
    failed: list[Params] = []
    for wanted in params["Versions"]:
        entry: Params = {"LaunchTemplateId": template.id, "LaunchTemplateName": template.name}
        number = int(wanted) if wanted.isdigit() else 0
        if number == template.default:
            error = {"Code": "launchTemplateVersionDoesNotExist", "Message": "The default version cannot be deleted."}
            failed.append({**entry, "VersionNumber": number, "ResponseError": error})
        elif template.versions.pop(number, None) is None:
            error = {"Code": "launchTemplateVersionDoesNotExist", "Message": f"There is no version {wanted}."}
            failed.append({**entry, "VersionNumber": number, "ResponseError": error})
        else:
            deleted.append({**entry, "VersionNumber": number})
    template.latest = max(template.versions)
    return {
        "SuccessfullyDeletedLaunchTemplateVersions": deleted,
        "UnsuccessfullyDeletedLaunchTemplateVersions": failed,
    }


TEMPLATE_FILTERS: Extractors[Template] = {
    "launch-template-name": lambda item: (item.name,),
    "create-time": lambda item: (timestamp(item.create_time),),
}


@action(
    "DescribeLaunchTemplates",
    optional=("LaunchTemplateIds", "LaunchTemplateNames", "Filters", "MaxResults", "NextToken"),
)
def describe_launch_templates(region: Region, params: Params) -> Params:
    wanted = [{"LaunchTemplateId": name} for name in params.get("LaunchTemplateIds", [])]
    wanted += [{"LaunchTemplateName": name} for name in params.get("LaunchTemplateNames", [])]
    items = [find(region, reference) for reference in wanted] if wanted else list(region.templates.values())
    chosen = select(
        "DescribeLaunchTemplates",
        items,
        params.get("Filters", []),
        TEMPLATE_FILTERS,
        lambda item: region.tags(item.id),
    )
    shown, token = page(chosen, params, smallest=1, largest=200)
    return {"LaunchTemplates": [_describe(region, item) for item in shown], "NextToken": token}


@action(
    "DescribeLaunchTemplateVersions",
    optional=(
        "LaunchTemplateId",
        "LaunchTemplateName",
        "Versions",
        "MinVersion",
        "MaxVersion",
        "MaxResults",
        "NextToken",
        "ResolveAlias",
    ),
)
def describe_launch_template_versions(region: Region, params: Params) -> Params:
    pairs: list[tuple[Template, TemplateVersion]] = []
    versions = params.get("Versions", [])
    if "LaunchTemplateId" in params or "LaunchTemplateName" in params:
        template = find(region, params)
        pairs = [(template, version) for version in _chosen(template, versions, params)]
    elif versions and set(versions) <= {"$Latest", "$Default"}:
        pairs = [(item, version_of(item, word)) for item in region.templates.values() for word in versions]
    else:
        raise missing("LaunchTemplateId")
    shown, token = page(pairs, params, smallest=1, largest=200)
    return {
        "LaunchTemplateVersions": [_describe_version(region, item, version) for item, version in shown],
        "NextToken": token,
    }


def _chosen(template: Template, versions: Sequence[str], params: Params) -> list[TemplateVersion]:
    if versions:
        return [version_of(template, word) for word in versions]
    lowest, highest = int(params.get("MinVersion", 1)), int(params.get("MaxVersion", template.latest))
    numbers = sorted(template.versions, reverse=True)  # newest first, as EC2 lists them
    return [template.versions[number] for number in numbers if lowest <= number <= highest]
