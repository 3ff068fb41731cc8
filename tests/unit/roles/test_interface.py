"""What every role promises: its variables are specified, have a documented default, and its README says so."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts"))

import role_readmes  # noqa: E402

ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())


class _Loader(yaml.SafeLoader):
    """Reads tasks with tags such as !vault as plain text."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: loader.construct_scalar(node))


def load(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), _Loader) if path.exists() else None


def specification(role: str) -> dict[str, Any]:
    return load(ROOT / "roles" / role / "meta/argument_specs.yml")["argument_specs"]


def specified(role: str) -> set[str]:
    return {name for entry in specification(role).values() for name in entry.get("options", {})}


def defaults(role: str) -> dict[str, Any]:
    return load(ROOT / "roles" / role / "defaults/main.yml") or {}


@pytest.mark.parametrize("role", ROLES)
def test_every_default_is_specified(role: str) -> None:
    assert set(defaults(role)) <= specified(role)


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_bears_the_name_of_the_role(role: str) -> None:
    assert [name for name in specified(role) if not name.startswith(f"{role}_")] == []


@pytest.mark.parametrize("role", ROLES)
def test_every_role_is_in_the_overview(role: str) -> None:
    assert f"[{role}](../roles/{role}/README.md)" in (ROOT / "docs/architecture.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("role", ROLES)
def test_every_entry_point_is_a_file_of_tasks(role: str) -> None:
    tasks = ROOT / "roles" / role / "tasks"
    missing = [name for name in specification(role) if not (tasks / f"{name}.yml").exists()]
    assert missing == []


@pytest.mark.parametrize("role", ROLES)
def test_every_default_has_a_comment(role: str) -> None:
    path = ROOT / "roles" / role / "defaults/main.yml"
    if not path.exists():
        return
    blocks = re.split(r"\n\n+", path.read_text(encoding="utf-8").removeprefix("---\n"))
    assert [block for block in blocks if not block.startswith("#")] == []


@pytest.mark.parametrize("role", ROLES)
def test_a_default_that_is_documented_is_the_one_that_is_used(role: str) -> None:
    used = defaults(role)
    for entry in specification(role).values():
        for name, option in entry.get("options", {}).items():
            if "default" in option:
                assert used.get(name) == option["default"], name


@pytest.mark.parametrize("role", ROLES)
def test_secrets_have_no_default_and_are_not_logged(role: str) -> None:
    for entry in specification(role).values():
        for name, option in entry.get("options", {}).items():
            if re.search(r"password|passphrase|secret", name) and option.get("type") == "str":
                assert option.get("no_log") is True, name
                assert str(defaults(role).get(name, "{{ vault_x }}")).startswith("{{ vault_"), name


@pytest.mark.parametrize("role", ROLES)
def test_the_readme_is_up_to_date(role: str) -> None:
    path = ROOT / "roles" / role
    text = role_readmes.render(role_readmes.read_role(path))
    assert (path / "README.md").read_text(encoding="utf-8") == text, "run: python scripts/role_readmes.py"


def test_readmes_turn_ansible_markup_into_markdown() -> None:
    assert role_readmes.markdown("see C(a|b) and O(ignore:x=1), I(really)") == "see `a\\|b` and `x=1`, *really*"


def test_the_example_of_the_vault_names_every_secret_that_is_used() -> None:
    example = load(ROOT / "inventory/group_vars/vault.example.yml")
    used = {
        name
        for path in [*ROOT.glob("roles/**/*.yml"), *ROOT.glob("inventory/**/*.yml"), *ROOT.glob("playbooks/*.yml")]
        for name in re.findall(r"\bvault_[a-z_]+\b", path.read_text(encoding="utf-8"))
    }
    assert used == set(example)


def test_the_example_of_the_vault_is_no_file_of_variables() -> None:
    assert not (ROOT / "inventory/group_vars/all/vault.example.yml").exists()


def test_every_setting_has_a_comment() -> None:
    text = (ROOT / "inventory/group_vars/all/farm.yml").read_text(encoding="utf-8")
    for name in load(ROOT / "inventory/group_vars/all/farm.yml"):
        line = re.search(rf"(?m)^#.*\n{name}:", text)
        assert line, f"{name} has no comment above it"


def test_every_setting_that_is_used_exists() -> None:
    known = set(load(ROOT / "inventory/group_vars/all/farm.yml"))
    # Variables of hosts: the inventory plugin's, and those of inventory/group_vars/<group>.
    known |= {"farm_tunnel_name", "farm_tunnel_address"}
    known |= {"farm_host_dir", "farm_inventory_name", "farm_inventory_regions"}
    known |= set(re.findall(r"farm_\w+", (ROOT / "plugins/plugin_utils/ec2_inventory.py").read_text(encoding="utf-8")))
    used: dict[str, Path] = {}
    for path in [*ROOT.glob("roles/*/*/*.yml"), *ROOT.glob("playbooks/*.yml"), *ROOT.glob("inventory/**/*.yml")]:
        for text in re.findall(r"\{\{.*?\}\}", path.read_text(encoding="utf-8"), re.DOTALL):
            used |= dict.fromkeys(re.findall(r"(?<![\w'.])farm_[a-z_]+\b(?!')", text), path)
    roles = tuple(f"{role}_" for role in ROLES)
    assert {name: path for name, path in used.items() if name not in known and not name.startswith(roles)} == {}
