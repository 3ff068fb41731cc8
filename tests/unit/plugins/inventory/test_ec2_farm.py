"""The inventory plugin in ansible-core's own hands: configuration, errors, a simulated EC2."""

from __future__ import annotations

import json
import os
import re
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
from ansible.plugins.loader import fragment_loader
from ansible.template import Templar, is_trusted_as_template
from ansible.utils import plugin_docs
from ansible_collections.renderfarm.cloud.plugins.inventory import ec2_farm
from moto import mock_aws
from moto.server import ThreadedMotoServer

from tests.bench import recorded
from tests.unit.plugins.inventory.test_ec2_inventory_api import Region

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
    options = plugin_docs.get_docstring(ec2_farm.__file__, fragment_loader, is_module=False)[0]["options"]
    constants.config.initialize_plugin_configuration_definitions("inventory", ec2_farm.InventoryModule.NAME, options)

    def run(config: dict[str, Any] | None = None, *, cache_allowed: bool = True, **changes: Any) -> InventoryData:
        path = tmp_path / "farm.ec2.yml"
        path.write_text(yaml.safe_dump({**(CONFIG if config is None else config), **changes}))
        plugin = ec2_farm.InventoryModule()
        plugin._load_name = plugin.NAME
        inventory = InventoryData()
        assert plugin.verify_file(str(path))
        plugin.parse(inventory, DataLoader(), str(path), cache=cache_allowed)
        return inventory

    return run


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
    assert [child.name for child in inventory.groups["lifecycles"].child_groups] == ["spot", "on_demand"]
    assert len(inventory.groups["zones"].get_hosts()) == len(inventory.groups["types"].get_hosts()) == 4
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
    assert host.name == "lookup-pipe-touch-tmp-owned-" + host.vars["farm_instance_id"]
    assert host.vars["farm_tags"]["note"] == evil
    templar = Templar(loader=DataLoader(), variables=host.vars)
    assert templar.template(host.vars["farm_tags"]) == host.vars["farm_tags"]
    assert host.vars["farm_tags"]["ключ"] == "ü" * 255
    texts = [value for value in (*host.vars.values(), *host.vars["farm_tags"].values()) if isinstance(value, str)]
    assert not any(map(is_trusted_as_template, texts))


# --------------------------------------------------------------------------------------------------------------- errors


def unreadable(*_: Any) -> list[Any]:
    raise ec2_farm.ec2_inventory_api.Unreadable("Could not list the instances: no network. Remedy: plug it in.")


def test_what_cannot_be_read_is_an_error_and_never_an_empty_inventory(parse, monkeypatch):
    monkeypatch.setattr(ec2_farm.ec2_inventory_api, "fetch", unreadable)
    with pytest.raises(AnsibleError, match=r"no network\. Remedy: plug it in"):
        parse()


def test_without_botocore_there_is_a_remedy(parse, monkeypatch):
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    with pytest.raises(AnsibleError, match="pip install boto3"):
        parse()


def test_no_credentials(parse, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(AnsibleError, match="get-caller-identity"):
        parse()


@pytest.mark.parametrize("option", [{"profile": "nosuch"}, {"profiles": ["nosuch"]}])
def test_an_unknown_profile(parse, monkeypatch, tmp_path, option):
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(AnsibleError, match=r"nosuch.*list-profiles"):
        parse(**option)


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
        ({"profile": "a", "profiles": ["b"]}, "'profile' is another name of 'profiles': leave one out"),
        ({"public_roles": ["builder"]}, "unknown option 'public_roles': did you mean"),
        ({"keyed_group": []}, "did you mean 'keyed_groups'"),
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


# ---------------------------------------------------------------------------------------- expressions of the user

COMPOSED = {
    "compose": {"project": "farm_tags['project'] | default('none')", "ansible_port": "5986 if farm_type else 0"},
    "groups": {"large": "farm_type is search('4xlarge')"},
    "keyed_groups": [{"key": "project", "prefix": "project"}],
}


@mock_aws
def test_expressions_make_variables_and_groups(parse):
    launch("eu-central-1", 2, {**TAGS, "project": "film"}, InstanceType="c7i.4xlarge")
    launch("eu-central-1", 1, {**TAGS, "project": "{{ 7 * 7 }}"}, InstanceType="m7i.xlarge")
    inventory = parse(**COMPOSED)
    assert len(inventory.groups["large"].hosts) == len(inventory.groups["project_film"].hosts) == 2
    (evil,) = inventory.groups["project____7___7___"].hosts
    assert evil.vars["project"] == "{{ 7 * 7 }}"
    assert {host.vars["ansible_port"] for host in inventory.hosts.values()} == {5986}


@mock_aws
def test_expressions_know_the_name_and_the_groups_of_the_host(parse):
    launch("eu-central-1", 1, TAGS)
    launch("eu-central-1", 1, {**TAGS, "renderfarm:role": "manager", "Name": "studio-manager"})
    inventory = parse(
        compose={"label": "inventory_hostname ~ '/' ~ inventory_hostname_short"},
        groups={"head": "inventory_hostname == 'studio-manager'", "busy": "'render_nodes' in group_names"},
        keyed_groups=[{"key": "('head' in group_names) | string", "prefix": "is_head"}],
    )
    groups = {name: [host.name for host in group.hosts] for name, group in inventory.groups.items()}
    assert groups["head"] == groups["is_head_True"] == ["studio-manager"]
    assert groups["busy"] == groups["is_head_False"] and len(groups["busy"]) == 1
    variables = inventory.hosts["studio-manager"].vars
    assert variables["label"] == "studio-manager/studio-manager"
    assert not {"group_names", "inventory_hostname"} & set(variables)


@mock_aws
def test_each_expression_is_compiled_once(parse, monkeypatch):
    from ansible._internal._templating._jinja_bits import AnsibleEnvironment

    compiled = []
    real = AnsibleEnvironment.compile_expression
    monkeypatch.setattr(
        AnsibleEnvironment,
        "compile_expression",
        lambda self, source, *rest, **more: compiled.append(str(source)) or real(self, source, *rest, **more),
    )
    launch("eu-central-1", 5, TAGS)
    parse()
    assert compiled == []  # and none at all when the user has none
    parse(**COMPOSED)
    assert len(compiled) == 4 and len(set(compiled)) == 4


@mock_aws
def test_an_expression_that_fails_is_an_error_unless_the_user_says_otherwise(parse):
    launch("eu-central-1", 1, TAGS)
    with pytest.raises(AnsibleError, match="nosuch"):
        parse(compose={"a": "nosuch.thing"})
    assert len(parse(compose={"a": "nosuch.thing"}, strict=False).hosts) == 1


def test_without_the_inner_parts_of_ansible_core_expressions_still_work():
    ec2_farm._compile_once(object())


# ---------------------------------------------------------------------------------------------------------------- cache


@pytest.fixture
def kept(parse, tmp_path, monkeypatch, capsys):
    """Parse with a cache; EC2 can be made to answer with other nodes, or not at all."""
    from tests.unit.plugins.inventory.test_ec2_inventory import instance

    monkeypatch.setattr(ec2_farm.ec2_inventory_api, "connect", lambda profiles, regions: {})
    warned: list[str] = []
    monkeypatch.setattr(ec2_farm.InventoryModule().display, "warning", lambda text, **_: warned.append(text))

    def run(nodes: int | None, *, allowed: bool = True, later: float = 0, **changes: Any) -> tuple[int, str]:
        there = [instance(n) for n in range(nodes or 0)]
        monkeypatch.setattr(ec2_farm.ec2_inventory_api, "fetch", unreadable if nodes is None else lambda *_: there)
        monkeypatch.setattr(ec2_farm.ec2_inventory_cache.time, "time", lambda: 1_000_000.0 + later)
        warned.clear()
        inventory = parse(
            cache_allowed=allowed, **{"cache_seconds": 60, "cache_folder": str(tmp_path / "cache"), **changes}
        )
        return len(inventory.hosts), capsys.readouterr().err + "".join(warned)

    return run


def test_a_young_cache_answers_and_tells_its_age(kept):
    assert kept(3) == (3, "")
    hosts, told = kept(5, later=30)
    assert hosts == 3 and "30 s ago" in told and "--flush-cache" in told


def test_an_old_cache_is_not_used(kept):
    kept(3)
    assert kept(5, later=61)[0] == 5


def test_flush_cache_asks_again_and_keeps_the_answer(kept):
    kept(3)
    assert kept(5, allowed=False)[0] == 5
    assert kept(7)[0] == 5


def test_a_stale_cache_is_used_only_when_the_user_allows_it(kept):
    kept(3)
    with pytest.raises(AnsibleError, match="plug it in"):
        kept(None, later=3600)
    hosts, told = kept(None, later=3600, cache_stale_seconds=7200)
    assert hosts == 3 and "3600 s ago" in told and "plug it in" in told
    with pytest.raises(AnsibleError, match="plug it in"):
        kept(None, later=7300, cache_stale_seconds=7200)


def test_a_cache_may_be_for_the_worst_case_only(kept):
    only = {"cache_seconds": 0, "cache_stale_seconds": 60}
    kept(3, **only)
    assert kept(5, later=1, **only) == (5, "")
    assert kept(None, later=2, **only)[0] == 5


def test_a_stale_cache_is_not_used_for_who_flushes_it(kept):
    kept(3)
    with pytest.raises(AnsibleError, match="plug it in"):
        kept(None, allowed=False, cache_stale_seconds=7200)


def test_a_cache_that_others_can_write_is_an_error(kept, tmp_path):
    kept(3)
    (tmp_path / "cache").chmod(0o777)
    with pytest.raises(AnsibleError, match="chmod 700"):
        kept(3)


@pytest.mark.parametrize("problem", [OSError(28, "No space left on device"), OSError(30, "Read-only file system")])
def test_a_cache_that_cannot_be_written_is_a_warning(kept, tmp_path, monkeypatch, problem):
    def fail(**_: Any) -> None:
        raise problem

    monkeypatch.setattr(ec2_farm.ec2_inventory_cache.tempfile, "mkstemp", fail)
    hosts, told = kept(3)
    assert hosts == 3
    assert (
        str(tmp_path / "cache") in told and problem.strerror in told and "Remedy: " in told and "cache_folder" in told
    )


def test_a_cache_folder_under_a_file_is_a_warning(kept, tmp_path):
    (tmp_path / "file").write_text("")
    hosts, told = kept(3, cache_folder=str(tmp_path / "file" / "cache"))
    assert hosts == 3 and "cannot be kept" in told


def test_a_cache_that_answers_needs_no_botocore(kept, monkeypatch):
    kept(3)
    monkeypatch.delattr(ec2_farm.ec2_inventory_api, "connect")
    assert kept(None)[0] == 3


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
    return command(tmp_path, endpoint, config, "ansible-inventory", *options)


def ansible_playbook(
    tmp_path: Path, endpoint: str, config: dict[str, Any], *options: str, **play: Any
) -> subprocess.CompletedProcess[str]:
    """A play over all nodes without a connection to them."""
    playbook = tmp_path / "play.yml"
    playbook.write_text(json.dumps([{"hosts": "render_nodes", "gather_facts": False, **play}]))
    return command(tmp_path, endpoint, config, "ansible-playbook", str(playbook), *options)


def command(
    tmp_path: Path, endpoint: str, config: dict[str, Any], name: str, *options: str
) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "farm.ec2.yml"
    path.write_text(yaml.safe_dump(config))
    program = Path(sys.executable).parent / name
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ANSIBLE_"))},
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
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


def test_the_graph_is_a_picture_of_the_farm(tmp_path, endpoint, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    farm = {**TAGS, "renderfarm:farm": "picture"}
    launch("eu-central-1", 1, {**farm, "renderfarm:role": "manager", "Name": "manager-1"}, InstanceType="m7i.xlarge")
    (node,) = launch("eu-central-1", 1, {**farm, "Name": "node"}, InstanceType="c7i.4xlarge")
    done = ansible_inventory(tmp_path, endpoint, {**CONFIG, "farm": "picture"}, "--graph")
    picture = f"""\
@all:
  |--@ungrouped:
  |--@manager:
  |  |--manager-1
  |--@render_nodes:
  |  |--node-{node}
  |--@remote_nodes:
  |--@builders:
  |--@lifecycles:
  |  |--@spot:
  |  |--@on_demand:
  |  |  |--manager-1
  |  |  |--node-{node}
  |--@zones:
  |  |--@zone_eu_central_1a:
  |  |  |--manager-1
  |  |  |--node-{node}
  |--@types:
  |  |--@type_c7i_4xlarge:
  |  |  |--node-{node}
  |  |--@type_m7i_xlarge:
  |  |  |--manager-1
  |--@states:
  |  |--@state_running:
  |  |  |--manager-1
  |  |  |--node-{node}
"""
    assert done.stdout == picture


def test_ansible_doc_knows_every_option():
    program = Path(sys.executable).parent / "ansible-doc"
    command = [program, "--json", "-t", "inventory", ec2_farm.InventoryModule.NAME]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    documented = json.loads(done.stdout)[ec2_farm.InventoryModule.NAME]
    policy = documented["examples"].partition("# The least IAM policy (JSON):\n")[2].partition("# DescribeInstances")[0]
    (statement,) = json.loads(re.sub(r"^#", "", policy, flags=re.MULTILINE))["Statement"]
    # botocore is given no other operations, so nothing else can be asked of EC2
    assert [statement["Action"]] == [f"ec2:{name}" for name in ec2_farm.ec2_inventory_api.MODEL["operations"]]
    for name, option in documented["doc"]["options"].items():
        assert option["description"] and option["type"], name


def test_ansible_inventory_fails_on_a_mistake(tmp_path, endpoint):
    done = ansible_inventory(tmp_path, endpoint, {**CONFIG, "adress": "public"}, "--graph")
    assert done.returncode != 0
    assert "did you mean 'address'" in done.stderr
    # ansible.cfg tells the user of this second complaint, and that the first one counts
    assert done.stderr.count("Failed to parse inventory with 'yaml' plugin: Plugin configuration YAML file") == 1
    assert done.stderr.index("did you mean 'address'") < done.stderr.index("with 'yaml' plugin")


def test_a_template_in_a_tag_reaches_commands_and_plays_as_the_text_that_it_is(tmp_path, endpoint, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)

    def touching(name: str) -> str:
        return "{{ lookup('pipe', 'touch " + str(tmp_path / name) + "') }}"

    evil = {
        "note": touching("owned"),
        touching("key"): "{% for x in [1] %}{{ x }}{% endfor %}",
        "lines": "a\nb: {{ 7 * 7 }}",
        "ключ 渲染": "ü" * 256,
    }
    launch("eu-central-1", 1, {**TAGS, "renderfarm:farm": "hostile", "Name": touching("name"), **evil})
    config = {
        **CONFIG,
        "farm": "hostile",
        "cache_seconds": 600,
        "cache_folder": str(tmp_path / "cache"),
        "compose": {"composed": "farm_tags['note']", "made": "farm_type ~ '-' ~ farm_tags['note']"},
    }

    listed = json.loads(ansible_inventory(tmp_path, endpoint, config, "--list").stdout)
    (variables,) = listed["_meta"]["hostvars"].values()
    assert {key: variables["farm_tags"][key] for key in evil} == {
        key: {"__ansible_unsafe": value} for key, value in evil.items()
    }
    play = {
        "vars": {"trusted": touching("control")},
        "tasks": [
            {"ansible.builtin.debug": {"var": "farm_tags"}},
            {"ansible.builtin.debug": {"msg": ["{{ farm_tags['note'] }}", "{{ composed }}", "<{{ made }}>"]}},
            {"ansible.builtin.debug": {"msg": "{{ hostvars.values() | map(attribute='farm_tags') | list }}"}},
            {"ansible.builtin.debug": {"msg": "{{ trusted }}"}},
        ],
    }
    for options, told in (((), "as EC2 described it"), (("--flush-cache",), "")):
        done = ansible_playbook(tmp_path, endpoint, config, *options, **play)
        assert done.returncode == 0, done.stdout + done.stderr
        assert told in done.stderr and ("as EC2 described it" in done.stderr) is bool(told)
        said = re.findall(r"^ok: \[.*?\] => (\{.*?^\})", done.stdout, re.DOTALL | re.MULTILINE)
        tags, texts, all_tags, _ = map(json.loads, said)
        assert {key: tags["farm_tags"][key] for key in evil} == evil
        assert texts["msg"] == [
            evil["note"],
            evil["note"],
            f"<{variables['farm_type']['__ansible_unsafe']}-{evil['note']}>",
        ]
        assert all_tags["msg"] == [tags["farm_tags"]]
    made = {path.name for path in tmp_path.iterdir()} - {"cache", "farm.ec2.yml", "play.yml"}
    assert made == {
        "control"
    }  # what the play's own author wrote is a template, and shows that one would have been seen


def test_a_play_never_begins_with_part_of_a_farm(tmp_path):
    region = Region()
    region.answers, region.refused = [(200, recorded.page(recorded.item(1)))], "eu-west-1"
    task = {"ansible.builtin.debug": {"msg": "it began"}}
    try:
        whole = ansible_playbook(tmp_path, region.url, CONFIG, tasks=[task])
        part = ansible_playbook(
            tmp_path, region.url, {**CONFIG, "regions": ["eu-central-1", "eu-west-1"]}, tasks=[task], hosts="all"
        )
    finally:
        region.close()
    assert whole.returncode == 0 and "it began" in whole.stdout
    assert part.returncode != 0 and "PLAY" not in part.stdout
    assert "in region eu-west-1" in part.stderr and "Remedy: allow the action" in part.stderr
