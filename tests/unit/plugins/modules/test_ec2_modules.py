"""The modules as ansible-core runs them, and their documentation: it says what they do."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.renderfarm.cloud.plugins.doc_fragments import farm
from ansible_collections.renderfarm.cloud.plugins.module_utils.preflight import Facts
from ansible_collections.renderfarm.cloud.plugins.modules import (
    ec2_destroy,
    ec2_farm_info,
    ec2_fleet,
    ec2_leftovers,
    ec2_preflight,
    ec2_windows_access,
)
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from moto.server import ThreadedMotoServer

from tests.unit.plugins.certificates import certificate_text

PROJECT = Path(__file__).resolve().parents[4]
REGION = "eu-central-1"


# -------------------------------------------------------------------------------------------------------- documentation


def documented(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a DOCUMENTATION text in the form of an argument_spec."""
    kept = {"type", "required", "default", "choices", "elements"}
    spec = {}
    for name, option in options.items():
        spec[name] = {key: value for key, value in option.items() if key in kept}
        if "suboptions" in option:
            spec[name]["options"] = documented(option["suboptions"])
    return spec


def all_options(documentation: dict[str, Any]) -> dict[str, Any]:
    """The options of a DOCUMENTATION text and of the collection's own fragments that it extends."""
    options = dict(documentation.get("options", {}))
    for name in documentation["extends_documentation_fragment"]:
        if name.startswith("renderfarm.cloud.farm"):
            text = getattr(
                farm.ModuleDocFragment, name.split(".")[3].upper() if name.count(".") == 3 else "DOCUMENTATION"
            )
            options |= yaml.safe_load(text)["options"]
    return options


def specified(spec: dict[str, Any]) -> dict[str, Any]:
    ignored = {"no_log", "mutually_exclusive", "required_one_of"}
    return {
        name: {
            key: specified(value) if key == "options" else value for key, value in option.items() if key not in ignored
        }
        for name, option in spec.items()
    }


@pytest.mark.parametrize(
    "module", [ec2_destroy, ec2_farm_info, ec2_fleet, ec2_leftovers, ec2_preflight, ec2_windows_access]
)
def test_documentation_and_specification_agree(module):
    documentation = yaml.safe_load(module.DOCUMENTATION)
    assert documented(all_options(documentation)) == specified(module.argument_spec())
    assert documentation["module"] == module.__name__.rpartition(".")[2]


@pytest.mark.parametrize(
    "module", [ec2_destroy, ec2_farm_info, ec2_fleet, ec2_leftovers, ec2_preflight, ec2_windows_access]
)
def test_examples_are_valid_calls(module):
    name = f"renderfarm.cloud.{module.__name__.rpartition('.')[2]}"
    validator = ArgumentSpecValidator({**module.argument_spec(), "region": {"type": "str"}})
    calls = [task[name] for task in yaml.safe_load(module.EXAMPLES) if name in task]
    assert calls
    for call in calls:
        assert validator.validate(call).error_messages == []


def test_what_a_fleet_returns_is_documented():
    returned = set(ec2_fleet.result(ec2_fleet.Outcome())) - {"changed", "diff"}
    assert returned == set(yaml.safe_load(ec2_fleet.RETURN))


def test_what_a_preflight_returns_is_documented():
    returned = set(ec2_preflight.result([], Facts())) - {"changed"}
    assert returned == set(yaml.safe_load(ec2_preflight.RETURN))


# --------------------------------------------------------------------------------------------------------- as a program


@pytest.fixture(scope="module")
def endpoint():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def ec2(endpoint, monkeypatch):
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    return boto3.client(
        "ec2", region_name=REGION, endpoint_url=endpoint, aws_access_key_id="test", aws_secret_access_key="test"
    )


def run(endpoint: str, module: str, arguments: dict[str, Any], *options: str) -> dict[str, Any]:
    """Run a module on localhost by ``ansible``; its result, whether it failed or not."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ANSIBLE_"))},
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
        "ANSIBLE_LOAD_CALLBACK_PLUGINS": "true",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "NO_PROXY": "*",
    }
    interpreter = f"ansible_python_interpreter={sys.executable}"
    command = [
        Path(sys.executable).parent / "ansible",
        "localhost",
        "-i",
        "localhost,",
        "-c",
        "local",
        "-e",
        interpreter,
    ]
    command += ["-m", f"renderfarm.cloud.{module}", "-a", json.dumps(arguments), *options]
    done = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=60)
    _, separator, text = done.stdout.partition("=> ")
    assert separator, done.stdout + done.stderr
    return json.loads(text)


def test_fleet_up_again_and_down(endpoint, ec2):
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/24")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    ec2.create_launch_template(
        LaunchTemplateName="film-render-node", LaunchTemplateData={"ImageId": "ami-00000000000000001"}
    )
    options = {
        "farm": "film",
        "region": REGION,
        "count": 3,
        "launch_template": {"name": "film-render-node"},
        "instance_types": ["c7i.4xlarge"],
        "subnet_ids": [subnet],
    }
    up = run(endpoint, "ec2_fleet", options)
    assert up["changed"] and len(up["launched"]) == len(up["instances"]) == 3
    assert {i["lifecycle"] for i in up["instances"]} == {"spot"}
    again = run(endpoint, "ec2_fleet", options)
    assert not again["changed"] and again["instances"] == up["instances"]
    kept = run(endpoint, "ec2_fleet", {**options, "count": 2})
    assert not kept["changed"] and len(kept["surplus"]) == 1
    down = run(endpoint, "ec2_fleet", {"farm": "film", "region": REGION, "state": "absent", "confirm_remove": True})
    assert down["changed"] and sorted(down["removed"]) == sorted(up["launched"])


def test_fleet_tells_a_missing_template(endpoint):
    options = {
        "farm": "other",
        "region": REGION,
        "count": 1,
        "launch_template": {"name": "nosuch"},
        "instance_types": ["c7i.4xlarge"],
    }
    done = run(endpoint, "ec2_fleet", options)
    assert "create the launch template first" in done["msg"]
    assert done["launched"] == []


def test_fleet_refuses_a_call_without_count(endpoint):
    assert "count" in run(endpoint, "ec2_fleet", {"farm": "film", "region": REGION})["msg"]


def test_access_tells_what_is_missing(endpoint, ec2, tmp_path):
    answer = ec2.run_instances(ImageId="ami-00000000000000001", MinCount=1, MaxCount=1)
    key = ec2.create_key_pair(KeyName="studio", KeyType="rsa")["KeyMaterial"]
    (tmp_path / "studio.pem").write_text(key)
    options = {
        "instance_id": answer["Instances"][0]["InstanceId"],
        "address": "10.0.0.10",
        "key_file": str(tmp_path / "studio.pem"),
        "path": str(tmp_path / "access"),
        "region": REGION,
        "password": False,
        "timeout": 1,
        "poll_interval": 1,
    }
    done = run(endpoint, "ec2_windows_access", options)
    assert "gave no certificate on its console within 1 s" in done["msg"]
    assert not (tmp_path / "access").exists()
    check = run(endpoint, "ec2_windows_access", options, "--check")
    assert check["changed"] is True
    missing = run(endpoint, "ec2_windows_access", {**options, "password": True, "key_file": "/nosuch.pem"})
    assert "/nosuch.pem" in missing["msg"] and "Remedy" in missing["msg"]


# ------------------------------------------------------------------------------------------------------- access, inside


class FakeModule:
    """As much of AnsibleAWSModule as ``ec2_windows_access.run`` needs."""

    check_mode = False

    def __init__(self, client: Any, **params: Any) -> None:
        self._client = client
        self.clients = 0
        self.params = {
            "key_passphrase": None,
            "password": True,
            "timeout": 5,
            "poll_interval": 1,
            "force": False,
            **params,
        }

    def client(self, service: str, **options: Any) -> Any:
        self.clients += 1
        return self._client


class FakeEC2:
    def __init__(self, console: str, password: str) -> None:
        self.console, self.password = console, password

    def get_console_output(self, **parameters: Any) -> dict[str, Any]:
        return {"Output": self.console}

    def get_password_data(self, **parameters: Any) -> dict[str, Any]:
        return {"PasswordData": self.password}


def test_access_is_asked_for_once(tmp_path):
    line = f"RENDERFARM-CERTIFICATE {certificate_text('10.0.0.10', '198.51.100.9')}\r\n"
    key = rsa.generate_private_key(65537, 2048)
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    password = base64.b64encode(key.public_key().encrypt(b"secret-123", padding.PKCS1v15())).decode()
    options = {
        "instance_id": "i-0123456789abcdef0",
        "address": "10.0.0.10",
        "key_file": str(tmp_path / "key.pem"),
        "path": str(tmp_path / "access"),
    }
    module = FakeModule(FakeEC2(line, password), **options)
    first = ec2_windows_access.run(module)
    assert first["changed"] and module.clients == 1
    assert Path(first["password_file"]).read_text() == "secret-123"
    assert Path(first["certificate"]).read_text().startswith("-----BEGIN CERTIFICATE-----")
    assert first["addresses"] == ["10.0.0.10", "198.51.100.9"]

    again = ec2_windows_access.run(module)
    assert module.clients == 1
    assert {**again, "changed": True} == first

    forced = ec2_windows_access.run(FakeModule(FakeEC2(line, password), **options, force=True))
    assert not forced["changed"]
    assert "secret-123" not in json.dumps([first, again, forced])

    other = FakeModule(FakeEC2(line, password), **{**options, "instance_id": "i-0fedcba9876543210"})
    other.check_mode = True
    assert ec2_windows_access.run(other)["changed"] and other.clients == 0
