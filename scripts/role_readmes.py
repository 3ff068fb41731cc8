"""Write each role's README.md from its meta/argument_specs.yml and defaults/main.yml.

``python scripts/role_readmes.py`` writes them, ``--check`` writes nothing and exits 1 when one is not up to date.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

ROOT = Path(__file__).resolve().parent.parent

TEMPLATE = """\
<!-- Written by scripts/role_readmes.py from meta/argument_specs.yml: change that file. -->
# renderfarm.cloud.{{ role.name }}

{{ role.entry_points[0].title }}.

{% for text in role.entry_points[0].description %}
{{ text }}

{% endfor %}
{% if role.entry_points | length > 1 %}
## Entry points

| `tasks_from` | does |
|---|---|
{% for entry in role.entry_points %}
| `{{ entry.name }}` | {{ entry.title }} |
{% endfor %}

{% endif %}
## Variables

{% if role.options %}
Types and ranges are checked before the first task (`meta/argument_specs.yml`).

| variable | type | default | meaning |
|---|---|---|---|
{% for option in role.options %}
| `{{ option.name }}` | {{ option.type }} | {{ option.default }} | {{ option.description }} |
{% endfor %}
{% else %}
None.
{% endif %}
"""

#: Ansible's markup, as in I(text), C(text), O(option), and what Markdown makes of it.
_MARKUP = re.compile(r"\b([ICOVMPE])\(([^()]*(?:\\\)[^()]*)*)\)")


@dataclass(frozen=True)
class EntryPoint:
    """One tasks file that may be run, with what it says of itself."""

    name: str
    title: str
    description: list[str]


@dataclass(frozen=True)
class Option:
    """One row of the table of variables."""

    name: str
    type: str
    default: str
    description: str


@dataclass(frozen=True)
class Role:
    """What the README says of a role."""

    name: str
    entry_points: list[EntryPoint]
    options: list[Option]


def as_list(text: str | list[str]) -> list[str]:
    """Descriptions are one string or several."""
    return [text] if isinstance(text, str) else list(text)


def markdown(text: str) -> str:
    """Ansible's markup as Markdown, fit for a cell of a table."""

    def replace(match: re.Match[str]) -> str:
        kind, content = match.groups()
        if kind == "I":
            return f"*{content}*"
        return f"`{content.removeprefix('ignore:').split('#')[0]}`"

    return _MARKUP.sub(replace, text).replace("|", "\\|").replace("\n", " ").strip()


def shown_type(option: Mapping[str, Any]) -> str:
    """``list of str`` and the like, with the choices."""
    text = str(option.get("type", "str"))
    if "elements" in option:
        text += f" of {option['elements']}"
    if "choices" in option:
        text += ": " + ", ".join(f"`{choice}`" for choice in option["choices"])
    return text


def shown_default(name: str, option: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """The default in defaults/main.yml; what the role itself sets there is what happens."""
    if name in defaults:
        value = defaults[name]
        text = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True, width=10_000).strip()
        text = text.removesuffix("\n...").strip()
        return "`" + text.replace("|", "\\|").replace("\n", " ") + "`" if text else '`""`'
    return "**required**" if option.get("required") else "none"


def options_of(
    options: Mapping[str, Mapping[str, Any]], defaults: Mapping[str, Any], prefix: str = ""
) -> Iterator[Option]:
    """The rows of the table: each option, each suboption below it as ``option.suboption``."""
    for name, option in options.items():
        yield Option(
            name=prefix + name,
            type=shown_type(option),
            default=shown_default(name, option, defaults if not prefix else {}),
            description=markdown(" ".join(as_list(option.get("description", "")))),
        )
        yield from options_of(option.get("options", {}), defaults, f"{prefix}{name}.")


def read_role(path: Path) -> Role:
    """The role in the folder ``path``. Raises FileNotFoundError when it has no argument specification."""
    specification = yaml.safe_load((path / "meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
    defaults_path = path / "defaults/main.yml"
    defaults = yaml.safe_load(defaults_path.read_text(encoding="utf-8")) if defaults_path.exists() else {}
    options: dict[str, Option] = {}
    for entry in specification.values():
        for option in options_of(entry.get("options", {}), defaults or {}):
            options.setdefault(option.name, option)
    return Role(
        name=path.name,
        entry_points=[
            EntryPoint(
                name, entry["short_description"].rstrip("."), [markdown(text) for text in as_list(entry["description"])]
            )
            for name, entry in specification.items()
        ],
        options=list(options.values()),
    )


def render(role: Role) -> str:
    """The text of the README."""
    environment = Environment(  # Markdown, not HTML: nothing to escape
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(TEMPLATE).render(role=role).rstrip("\n") + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Write or check all READMEs; 1 when ``--check`` finds one that is not up to date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a README is not up to date")
    check = parser.parse_args(arguments).check
    stale = []
    for path in sorted((ROOT / "roles").iterdir()):
        if not path.is_dir():
            continue
        readme, text = path / "README.md", render(read_role(path))
        if readme.exists() and readme.read_text(encoding="utf-8") == text:
            continue
        stale.append(readme.relative_to(ROOT))
        if not check:
            readme.write_text(text, encoding="utf-8")
    for readme in stale:
        print(f"{readme}: {'is not up to date, run: python scripts/role_readmes.py' if check else 'written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
