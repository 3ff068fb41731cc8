# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a machine of the farm gets an installer from: HTTP, S3, or a file on the controller that goes through S3.

A machine has no credentials. It gets a pre-signed URL, which the controller makes from its own without asking AWS, and
which ends after some hours (Amazon S3 User Guide, "Sharing objects with presigned URLs").
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..module_utils.holdings import installers_folder

URL_SECONDS = 12 * 3600
_CHUNK = 1 << 20


class InstallerError(ValueError):
    """A source that cannot be used; the text is for the user."""


def flat(installers: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Name and source of each entry of farm_installers; renderers bear their names themselves."""
    for name, source in installers.items():
        if isinstance(source, Mapping):
            yield name, source
        else:
            yield from ((str(each["name"]), each) for each in source)


def place(source: Mapping[str, Any], bucket: str, farm: str) -> str:
    """The URL of a source: its own, or for a file on the controller the one that ``farm`` has in ``bucket``."""
    if not source.get("path"):
        return str(source["url"])
    if not bucket:
        raise InstallerError(
            f"{source['path']} is a file on the controller, which a machine in the cloud cannot reach: "
            "set farm_installers_bucket to an S3 bucket through which it goes, or give an url"
        )
    name = f"{str(source['sha256']).lower()}/{Path(str(source['path'])).name}"
    return f"s3://{bucket}/{installers_folder(farm)}{name}"


def bucket_and_key(url: str) -> tuple[str, str]:
    """``s3://bucket/key`` in its parts."""
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc or not parts.path.strip("/"):
        raise InstallerError(f"{url} is not of the form s3://BUCKET/KEY")
    return parts.netloc, parts.path.lstrip("/")


def download_url(source: Mapping[str, Any], bucket: str, region: str, farm: str) -> str:
    """What the machine downloads: the URL itself, pre-signed when it is in S3."""
    url = place(source, bucket, farm)
    if not url.startswith("s3://"):
        return url
    name, key = bucket_and_key(url)
    signed: str = client(region).generate_presigned_url(
        "get_object", Params={"Bucket": name, "Key": key}, ExpiresIn=URL_SECONDS
    )
    return signed


def client(region: str) -> Any:
    """An S3 client with the environment's credentials."""
    import boto3
    from botocore.config import Config

    # "virtual" names the Region's own host. Else botocore signs for the global one, which redirects what asks for a new
    # bucket of another Region, where that signature is wrong (Boto3 documentation, "Presigned URLs").
    config = Config(
        signature_version="s3v4", s3={"addressing_style": "virtual"}, retries={"mode": "standard", "max_attempts": 8}
    )
    return boto3.session.Session().client("s3", region_name=region, config=config)


def upload(s3: Any, source: Mapping[str, Any], bucket: str, farm: str) -> bool:
    """Put the file of a source into the bucket; False when it is there already. InstallerError, botocore's errors."""
    from botocore.exceptions import ClientError

    path = Path(str(source["path"])).expanduser()
    digest = file_digest(path)
    if digest != str(source["sha256"]).lower():
        raise InstallerError(f"{path} has the SHA-256 {digest}, not {source['sha256']}: correct farm_installers")
    name, key = bucket_and_key(place(source, bucket, farm))
    try:
        s3.head_object(Bucket=name, Key=key)
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != 404:
            raise
    else:
        return False
    s3.upload_file(str(path), name, key)
    return True


def file_digest(path: Path) -> str:
    """SHA-256 in hexadecimal digits. InstallerError: the file cannot be read."""
    whole = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                whole.update(chunk)
    except OSError as error:
        raise InstallerError(f"{path} cannot be read ({error.strerror}): correct farm_installers") from error
    return whole.hexdigest()
