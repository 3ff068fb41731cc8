"""The EC2 plugins against the rehearsal's region: what they ask of the API is what EC2 takes."""

from __future__ import annotations

import time
from typing import Any

import pytest
from ansible_collections.renderfarm.cloud.plugins.module_utils import aws_errors, windows_access
from ansible_collections.renderfarm.cloud.plugins.module_utils.fleet import Fleet, Outcome, Wish
from ansible_collections.renderfarm.cloud.plugins.plugin_utils import ec2_inventory, ec2_inventory_api
from botocore.exceptions import ClientError

from rehearsal.cloud import Cloud
from tests.unit.plugins.certificates import certificate_text

REGION = "eu-central-1"


@pytest.fixture
def wish(client) -> Wish:
    """Five nodes over three zones, with a launch template from the stock image."""
    vpc = client.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        client.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{16 * n}.0/20", AvailabilityZone=f"{REGION}{zone}")
        for n, zone in enumerate("abc")
    ]
    image = client.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    client.create_key_pair(KeyName="studio", KeyType="rsa")
    client.create_launch_template(
        LaunchTemplateName="studio-render-node", LaunchTemplateData={"ImageId": image, "KeyName": "studio"}
    )
    return Wish(
        farm="studio",
        role="render_node",
        count=5,
        launch_template={"name": "studio-render-node", "version": "$Latest"},
        instance_types=["c7i.4xlarge", "c6i.4xlarge"],
        subnet_ids=[subnet["Subnet"]["SubnetId"] for subnet in subnets],
    )


def have(client: Any, wish: Wish, **changes: Any) -> Outcome:
    fleet = Fleet(client, wish.farm, wait_seconds=10, poll_seconds=0.1, sleep=lambda seconds: time.sleep(0.1))
    return fleet.present(Wish(**{**vars(wish), **changes}), confirm_remove=True)


def mutating(cloud: Cloud) -> list[str]:
    return [call.action for call in cloud.calls if call.mutating]


def test_up_again_more_fewer_and_down(cloud, client, wish):
    cloud.calls.clear()
    up = have(client, wish)
    assert len(up.instances) == 5 and up.errors == []
    assert mutating(cloud) == ["CreateFleet"]
    assert {i["lifecycle"] for i in up.instances} == {"spot"}
    assert all(i["mac"] and i["private_ip"].startswith("10.0.") for i in up.instances)

    cloud.calls.clear()
    again = have(client, wish)
    assert not again.changed and mutating(cloud) == []
    assert again.instances == up.instances

    assert len(have(client, wish, count=7).launched) == 2
    fewer = have(client, wish, count=3)
    assert len(fewer.removed) == 4 and set(fewer.removed) <= set(up.launched) | set(again.before) | set(fewer.before)
    Fleet(client, "studio", wait_seconds=10, poll_seconds=0.1).absent(["render_node"], confirm_remove=True)
    assert client.describe_volumes()["Volumes"] == []
    assert client.describe_network_interfaces()["NetworkInterfaces"] == []


def test_volumes_and_interfaces_carry_the_tags(client, wish):
    have(client, wish, count=1)
    filters = [{"Name": "tag:renderfarm:farm", "Values": ["studio"]}]
    assert len(client.describe_volumes(Filters=filters)["Volumes"]) == 1
    assert len(client.describe_network_interfaces(Filters=filters)["NetworkInterfaces"]) == 1


def test_a_thousand_nodes_and_their_inventory(cloud, client, wish):
    cloud.calls.clear()
    up = have(client, wish, count=700)
    assert len(up.instances) == 700
    assert have(client, wish, count=1100).changed
    assert mutating(cloud) == ["CreateFleet"] * 2
    cloud.calls.clear()
    clients = ec2_inventory_api.connect([], [REGION])
    farm = ec2_inventory.build(ec2_inventory_api.fetch(clients, "studio", ["running"]), address="tunnel")
    assert len({host.name for host in farm.hosts}) == 1100
    assert [call.action for call in cloud.calls] == ["DescribeInstances"] * 2


def test_dry_pools_are_told_and_on_demand_helps(cloud, client, wish):
    for kind in wish.instance_types:
        for zone in "abc":
            cloud.set_capacity(kind, f"{REGION}{zone}", 0, "spot")
    cloud.set_capacity("c7i.4xlarge", f"{REGION}a", 2, "spot")
    outcome = have(client, wish)
    assert not outcome.failed and len(outcome.instances) == 5
    assert sorted(i["lifecycle"] for i in outcome.instances) == ["on-demand"] * 3 + ["spot"] * 2
    assert outcome.errors[0]["code"] == "InsufficientInstanceCapacity"
    alone = have(client, wish, role="builder", on_demand_fallback=False)
    assert alone.failed and alone.shortfall == 5 and "Remedy" in alone.msg


def test_too_low_a_price_is_told(client, wish):
    outcome = have(client, wish, max_price=0.0001, on_demand_fallback=False)
    assert outcome.failed and {error["code"] for error in outcome.errors} == {"SpotMaxPriceTooLow"}
    assert "raise max_price" in outcome.msg


def test_up_down_up_gives_new_machines(client, wish):
    first = have(client, wish)
    have(client, wish, count=0)
    second = have(client, wish)
    assert len(second.instances) == 5 and not set(first.launched) & set(second.launched)


def test_refusals_are_told_with_a_remedy(cloud, client, wish):
    cloud.deny("CreateFleet", True)
    with pytest.raises(ClientError) as caught:
        have(client, wish)
    assert "allow the action" in aws_errors.explain(caught.value, doing="launch")


def test_throttling_is_waited_out(cloud, client, wish):
    cloud.throttle("CreateFleet", 5)
    assert len(have(client, wish).instances) == 5


def test_new_nodes_that_become_known_bit_by_bit(cloud, client, wish):
    cloud.unknown_for(1.0)
    assert len(have(client, wish, count=50).instances) == 50
    assert len(have(client, wish, count=0).removed) == 50


def test_an_api_that_is_down_is_no_empty_inventory(cloud, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    cloud.api_down(True)
    clients = ec2_inventory_api.connect([], [REGION])
    with pytest.raises(ec2_inventory_api.Unreadable, match=f"in region {REGION}.*Remedy"):
        ec2_inventory_api.fetch(clients, "studio", ["running"])


def test_access_to_a_machine(cloud, client, wish, tmp_path):
    key = client.create_key_pair(KeyName="access", KeyType="rsa")["KeyMaterial"].encode()
    client.create_launch_template_version(
        LaunchTemplateName="studio-render-node", SourceVersion="1", LaunchTemplateData={"KeyName": "access"}
    )
    (machine,) = have(client, wish, count=1).instances
    cloud.password_data(machine["instance_id"], "correct-horse")
    line = f"RENDERFARM-CERTIFICATE {certificate_text(machine['private_ip'])}\r\n"
    cloud.console_write(machine["instance_id"], b"Windows is Ready to use\r\n" + line.encode())
    private = windows_access.load_key(key, None, "studio.pem")
    found = windows_access.wait_for_access(client, machine["instance_id"], machine["private_ip"], private, timeout=5)
    assert found.password == "correct-horse"
    assert found.certificate.addresses == (machine["private_ip"],)
