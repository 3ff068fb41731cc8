"""Renders a role's template with Ansible's own templating, the role's defaults and given settings.

Contract: ``render(role, template, settings)`` returns the text that ``ansible.windows.win_template`` would copy,
without a host, in milliseconds. Undefined variables raise as they would in a play.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

PROJECT = Path(__file__).resolve().parents[2]


def _trusted(value: Any) -> Any:
    """Mark every string as a template, as strings of a role's files are."""
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, dict):
        return {key: _trusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_trusted(item) for item in value]
    return value


def _templar(role: str, settings: dict[str, Any]) -> Templar:
    folder = PROJECT / "roles" / role
    variables: dict[str, Any] = {"ansible_managed": "Managed by Ansible"}
    for name in ("defaults", "vars"):
        path = folder / name / "main.yml"
        if path.exists():
            variables |= _trusted(yaml.safe_load(path.read_text()) or {})
    variables |= _trusted(settings)
    return Templar(loader=DataLoader(), variables=variables)


def render(role: str, template: str, settings: dict[str, Any]) -> str:
    """Render ``roles/<role>/templates/<template>``; ``settings`` win over the role's defaults."""
    text = (PROJECT / "roles" / role / "templates" / template).read_text()
    return str(_templar(role, settings).template(trust_as_template(text)))


def value(role: str, variable: str, settings: dict[str, Any]) -> Any:
    """What a variable of the role is with these settings."""
    return _templar(role, settings).template(trust_as_template("{{ " + variable + " }}"))


def accepts(role: str, tasks: str, task: str, settings: dict[str, Any]) -> bool:
    """Whether the assertions of a task in ``roles/<role>/tasks/<tasks>.yml`` hold with these settings."""
    listed = yaml.safe_load((PROJECT / "roles" / role / "tasks" / f"{tasks}.yml").read_text())
    found = next(item for item in listed if item["name"] == task)
    that = found["ansible.builtin.assert"]["that"]
    templar = _templar(role, settings | _trusted(found.get("vars", {})))
    conditions = [that] if isinstance(that, str) else that
    return all(templar.template(trust_as_template("{{ (" + condition + ") | bool }}")) for condition in conditions)
