"""The inventory plugin in ansible-core's own hands: configuration, errors, a simulated EC2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from ansible import constants
from ansible.errors import AnsibleError, AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.renderfarm.cloud.plugins.inventory import ec2_farm
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from botocore.stub import Stubber
from moto import mock_aws
from moto.server import ThreadedMotoServer

PROJECT = Path(__file__).resolve().parents[4]
CONFIG = {"plugin": "renderfarm.cloud.ec2_farm", "farm": "studio", "regions": ["eu-central-1"]}


@pytest.fixture(autouse=True)
def _credentials(monkeypatch):
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "RENDERFARM_FARM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # a second per region, and no test needs an image


@pytest.fixture
def parse(tmp_path):
    """Parse a configuration with the real plugin into a real inventory."""
    options = yaml.safe_load(ec2_farm.DOCUMENTATION)["options"]
    constants.config.initialize_plugin_configuration_definitions("inventory", ec2_farm.InventoryModule.NAME, options)

    def run(config: dict[str, Any] | None = None, **changes: Any) -> InventoryData:
        path = tmp_path / "farm.ec2.yml"
        path.write_text(yaml.safe_dump({**(CONFIG if config is None else config), **changes}))
        plugin = ec2_farm.InventoryModule()
        plugin._load_name = plugin.NAME
        inventory = InventoryData()
        assert plugin.verify_file(str(path))
        plugin.parse(inventory, DataLoader(), str(path))
        return inventory

    return run


class FailingClient:
    """Refuses every request with one error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def get_paginator(self, operation_name: str) -> FailingClient:
        return self

    def paginate(self, **parameters: Any):
        raise self.error


def use_clients(monkeypatch, **clients: Any) -> None:
    monkeypatch.setattr(
        ec2_farm, "make_clients", lambda regions, profile: {r: clients[r.replace("-", "_")] for r in regions}
    )


def launch(region: str, count: int, tags: dict[str, str], **parameters: Any) -> list[str]:
    client = boto3.client("ec2", region_name=region)
    specification = [{"ResourceType": "instance", "Tags": [{"Key": k, "Value": v} for k, v in tags.items()]}]
    answer = client.run_instances(
        ImageId="ami-00000000000000001", MinCount=count, MaxCount=count, TagSpecifications=specification, **parameters
    )
    return [i["InstanceId"] for i in answer["Instances"]]


TAGS = {"renderfarm:farm": "studio", "renderfarm:role": "render_node", "Name": "studio-render-node"}


# -------------------------------------------------------------------------------------------------------- with a cloud


@mock_aws
def test_two_regions_become_one_inventory(parse):
    launch("eu-central-1", 3, TAGS, InstanceType="c7i.4xlarge")
    launch("eu-west-1", 1, {**TAGS, "renderfarm:role": "manager", "Name": "studio-manager"}, InstanceType="m7i.xlarge")
    launch("eu-west-1", 2, {**TAGS, "renderfarm:farm": "other"})
    inventory = parse(regions=["eu-central-1", "eu-west-1"])
    groups = {name: [host.name for host in group.hosts] for name, group in inventory.groups.items()}
    assert len(groups["render_nodes"]) == 3 and len(set(groups["render_nodes"])) == 3
    assert groups["manager"] == ["studio-manager"]
    assert groups["remote_nodes"] == groups["builders"] == groups["spot"] == []
    assert len(groups["on_demand"]) == len(groups["state_running"]) == 4
    assert groups["type_m7i_xlarge"] == ["studio-manager"]
    variables = inventory.hosts["studio-manager"].vars
    assert variables["farm_region"] == "eu-west-1"
    assert variables["ansible_host"] == variables["farm_private_ip"] != ""
    everyone = inventory.groups["all"].vars
    assert everyone["farm_inventory_name"] == "studio"
    assert everyone["farm_inventory_regions"] == ["eu-central-1", "eu-west-1"]


@mock_aws
def test_states_are_filtered(parse):
    first, *_ = launch("eu-central-1", 3, TAGS)
    boto3.client("ec2", region_name="eu-central-1").stop_instances(InstanceIds=[first])
    assert len(parse().hosts) == 2
    assert len(parse(states=["stopped"]).hosts) == 1
    assert (
        next(iter(parse(states=["stopped", "running"]).groups["state_stopped"].hosts)).vars["farm_instance_id"] == first
    )


@mock_aws
def test_an_empty_farm_is_an_empty_inventory_with_its_groups(parse):
    inventory = parse()
    assert inventory.hosts == {}
    assert {"manager", "render_nodes", "remote_nodes", "builders", "spot", "on_demand"} <= set(inventory.groups)


@mock_aws
def test_tags_are_never_templates(parse):
    evil = "{{ lookup('pipe', 'touch /tmp/owned') }}"
    launch("eu-central-1", 1, {**TAGS, "Name": evil, "note": evil, "lines": "a\nb: {{ x }}", "ключ": "ü" * 255})
    (host,) = parse().hosts.values()
    assert host.name == "lookup-pipe-touch-tmp-owned"
    assert host.vars["farm_tags"]["note"] == evil
    templar = Templar(loader=DataLoader(), variables=host.vars)
    assert templar.template(host.vars["farm_tags"]) == host.vars["farm_tags"]
    assert host.vars["farm_tags"]["ключ"] == "ü" * 255


def test_all_pages_are_read(parse, monkeypatch):
    client = boto3.client("ec2", region_name="eu-central-1")
    tags = [{"Key": key, "Value": value} for key, value in TAGS.items()]

    def answer(numbers: range, token: str | None) -> dict[str, Any]:
        instances = [
            {"InstanceId": f"i-{n:017x}", "State": {"Name": "running"}, "Tags": tags, "PrivateIpAddress": "10.0.0.9"}
            for n in numbers
        ]
        return {"Reservations": [{"Instances": [i]} for i in instances], **({"NextToken": token} if token else {})}

    asked = {
        "Filters": [
            {"Name": "tag:renderfarm:farm", "Values": ["studio"]},
            {"Name": "instance-state-name", "Values": ["pending", "running"]},
        ],
        "MaxResults": 1000,
    }
    with Stubber(client) as stub:
        stub.add_response("describe_instances", answer(range(1000), "one"), asked)
        stub.add_response("describe_instances", answer(range(1000, 2000), "two"), {**asked, "NextToken": "one"})
        stub.add_response("describe_instances", answer(range(2000, 2100), None), {**asked, "NextToken": "two"})
        use_clients(monkeypatch, eu_central_1=client)
        assert len(parse().hosts) == 2100
        stub.assert_no_pending_responses()


# --------------------------------------------------------------------------------------------------------------- errors


def refused(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "You may not."}}, "DescribeInstances")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (EndpointConnectionError(endpoint_url="https://ec2.eu-central-1.amazonaws.com/"), "check the network"),
        (refused("UnauthorizedOperation"), "allow the action"),
        (refused("AuthFailure"), "check the credentials"),
        (refused("RequestExpired"), "log in again"),
        (refused("RequestLimitExceeded"), "wait a minute"),
        (refused("OptInRequired"), "enable the region"),
        (NoCredentialsError(), "check the credentials"),
    ],
)
def test_a_failing_region_is_an_error_with_a_remedy_and_never_an_empty_inventory(parse, monkeypatch, error, words):
    good = boto3.client("ec2", region_name="eu-central-1")
    with Stubber(good) as stub:
        stub.add_response("describe_instances", {"Reservations": []})
        use_clients(monkeypatch, eu_central_1=good, eu_west_1=FailingClient(error))
        with pytest.raises(AnsibleError) as caught:
            parse(regions=["eu-central-1", "eu-west-1"])
    text = str(caught.value)
    assert "farm 'studio' in region eu-west-1" in text and words in text


def test_a_cut_answer_is_an_error(parse, monkeypatch):
    client = boto3.client("ec2", region_name="eu-central-1")

    def cut(request: Any, **kwargs: Any) -> Any:
        from botocore.awsrequest import AWSResponse

        response = AWSResponse(request.url, 200, {}, None)
        response._content = b"<DescribeInstancesResponse><reservationSet><item><instancesSet><item><instanceId>i-0"
        return response

    client.meta.events.register("before-send.ec2.DescribeInstances", cut)
    use_clients(monkeypatch, eu_central_1=client)
    with pytest.raises(AnsibleError, match="Remedy: the answer is no answer of EC2"):
        parse()


def test_an_answer_of_something_else_is_an_error(parse, monkeypatch):
    client = boto3.client("ec2", region_name="eu-central-1")

    def portal(request: Any, **kwargs: Any) -> Any:
        from botocore.awsrequest import AWSResponse

        response = AWSResponse(request.url, 200, {}, None)
        response._content = b"<html><body>Welcome to the hotel</body></html>"
        return response

    client.meta.events.register("before-send.ec2.DescribeInstances", portal)
    use_clients(monkeypatch, eu_central_1=client)
    with pytest.raises(AnsibleError, match="holds no list of reservations"):
        parse()


def test_no_credentials(parse, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(AnsibleError, match="get-caller-identity"):
        parse()


def test_an_unknown_profile(parse, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(AnsibleError, match=r"nosuch.*list-profiles"):
        parse(profile="nosuch")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"regoins": ["eu-central-1"]}, "unknown option 'regoins': did you mean 'regions'"),
        ({"state": "running", "adress": "public"}, "did you mean 'address'.*did you mean 'states'"),
        ({"regions": ["eu-central-1b"]}, "is a zone: its region is eu-central-1"),
        ({"regions": []}, "'regions' is empty"),
        ({"states": ["runing"]}, "'runing' in 'states' is no state"),
        ({"states": []}, "'states' is empty"),
        ({"farm": "{{ farm_name }}"}, "variables do not exist yet"),
        ({"farm": " "}, "'farm' is empty"),
        ({"public_roles": ["bilder"]}, "'bilder' in 'public_roles' is no role"),
        ({"address": "both"}, "Invalid value 'both' for config 'address'"),
    ],
)
def test_mistakes_in_the_file_are_errors(parse, changes, words):
    with pytest.raises(AnsibleError, match=words):
        parse(**changes)


def test_a_misspelt_required_option_is_told_as_such(parse):
    with pytest.raises(AnsibleParserError, match="did you mean 'regions'"):
        parse({"plugin": CONFIG["plugin"], "farm": "studio", "region": ["eu-central-1"]})


@mock_aws
def test_the_farm_may_come_from_the_environment(parse, monkeypatch):
    launch("eu-central-1", 1, TAGS)
    monkeypatch.setenv("RENDERFARM_FARM", "studio")
    assert len(parse({"plugin": CONFIG["plugin"], "regions": ["eu-central-1"]}).hosts) == 1


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("farm.ec2.yml", True),
        ("ec2_farm.yaml", True),
        ("a_ec2_farm.yml", True),
        ("farm.yml", False),
        ("ec2.ini", False),
    ],
)
def test_only_files_that_are_meant_for_it(tmp_path, name, meant):
    path = tmp_path / name
    path.write_text("plugin: renderfarm.cloud.ec2_farm\n")
    assert ec2_farm.InventoryModule().verify_file(str(path)) is meant


# --------------------------------------------------------------------------------------------- the command of the user


@pytest.fixture(scope="module")
def endpoint():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def ansible_inventory(
    tmp_path: Path, endpoint: str, config: dict[str, Any], *options: str
) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "farm.ec2.yml"
    path.write_text(yaml.safe_dump(config))
    program = Path(sys.executable).parent / "ansible-inventory"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ANSIBLE_"))},
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "NO_PROXY": "*",
    }
    return subprocess.run(
        [program, "-i", path, *options], env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=60
    )


def test_ansible_inventory_lists_the_farm(tmp_path, endpoint, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    launch("eu-central-1", 2, TAGS)
    done = ansible_inventory(tmp_path, endpoint, CONFIG, "--list")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    listed = json.loads(done.stdout)
    assert len(listed["render_nodes"]["hosts"]) == 2
    roles = [variables["farm_role"] for variables in listed["_meta"]["hostvars"].values()]
    assert roles == [{"__ansible_unsafe": "render_node"}] * 2


def test_ansible_inventory_fails_on_a_mistake(tmp_path, endpoint):
    done = ansible_inventory(tmp_path, endpoint, {**CONFIG, "adress": "public"}, "--graph")
    assert done.returncode != 0
    assert "did you mean 'address'" in done.stderr
