"""S3, Service Quotas and the Price List, as far as a bake and its pre-flight use them."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest
from ansible_collections.renderfarm.cloud.plugins.module_utils import prices
from ansible_collections.renderfarm.cloud.plugins.plugin_utils import installers
from simulated_ec2 import Aws, refused

from rehearsal.cloud.prices import on_demand_price


@pytest.fixture
def credentials(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Aws:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "rehearsal")
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
    return aws


def source(tmp_path: Any, content: bytes = b"an installer") -> dict[str, str]:
    path = tmp_path / "Backburner 2019.msi"
    path.write_bytes(content)
    return {"path": str(path), "sha256": installers.file_digest(path)}


def test_file_goes_to_s3_once_and_comes_back_by_a_signed_url(credentials: Aws, tmp_path: Any) -> None:
    given, s3 = source(tmp_path), installers.client("eu-central-1")
    assert installers.upload(s3, given, "bucket", "studio") is True
    assert installers.upload(s3, given, "bucket", "studio") is False
    url = installers.download_url(given, "bucket", "eu-central-1", "studio")
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.read() == b"an installer"
    actions = [call.action for call in credentials.cloud.calls if call.service == "s3"]
    assert actions == ["HeadObject", "PutObject", "HeadObject", "GetObject"]


def test_url_with_another_signature_or_key_is_refused(credentials: Aws, tmp_path: Any) -> None:
    given = source(tmp_path)
    installers.upload(installers.client("eu-central-1"), given, "bucket", "studio")
    url = installers.download_url(given, "bucket", "eu-central-1", "studio")
    for wrong in (url[:-1] + ("0" if url[-1] != "0" else "1"), url.replace("Backburner", "Other"), url.split("?")[0]):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(wrong, timeout=10)
        with error.value as answer:
            assert answer.code in (400, 403)


def test_source_that_cannot_be_used_is_named(tmp_path: Any) -> None:
    given = source(tmp_path)
    with pytest.raises(installers.InstallerError, match="farm_installers_bucket"):
        installers.place(given, "", "studio")
    with pytest.raises(installers.InstallerError, match="s3://BUCKET/KEY"):
        installers.bucket_and_key("s3://bucket")
    with pytest.raises(installers.InstallerError, match="correct farm_installers"):
        installers.upload(None, {**given, "sha256": "0" * 64}, "bucket", "studio")
    with pytest.raises(installers.InstallerError, match="cannot be read"):
        installers.file_digest(tmp_path / "absent")
    assert installers.download_url({"url": "https://x/y.msi"}, "", "eu-central-1", "studio") == "https://x/y.msi"


def test_quotas_are_what_they_were_set_to(aws: Aws) -> None:
    quotas = aws.client("service-quotas")
    aws.cloud.set_vcpu_quota("spot", 64)
    found = {
        code: quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"]
        for code in ("L-34B43A08", "L-1216C47A")
    }
    assert found == {"L-34B43A08": 64.0, "L-1216C47A": 100_000.0}
    with refused("RehearsalNotImplemented"):
        quotas.get_service_quota(ServiceCode="ec2", QuotaCode="L-3819A6DF")


def test_price_list_has_the_prices_that_the_rehearsal_invented(aws: Aws) -> None:
    pricing = aws.client("pricing")

    def listed(kind: str) -> float | None:
        filters = prices.product_filters(kind, "eu-central-1")
        return prices.on_demand_price(pricing.get_products(ServiceCode="AmazonEC2", Filters=filters)["PriceList"])

    assert listed("m7i.xlarge") == pytest.approx(on_demand_price("m7i.xlarge"))
    assert listed("c99.xlarge") is None
    with refused("RehearsalNotImplemented"):
        pricing.get_products(ServiceCode="AmazonEC2", Filters=[])


def test_record_of_calls_is_json(credentials: Aws, call_log: Any, tmp_path: Any) -> None:
    installers.upload(installers.client("eu-central-1"), source(tmp_path), "bucket", "studio")
    lines = [json.loads(line) for line in call_log.read_text().splitlines()]
    last = [line for line in lines if line["service"] == "s3"][-1]
    assert (last["action"], last["mutating"], last["status"], last["region"]) == (
        "PutObject",
        True,
        200,
        "eu-central-1",
    )
