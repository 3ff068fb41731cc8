"""Argument specifications of Windows modules, and the check that a real module makes with them.

A specification is read, in this order of preference, from the module's script that travels in a payload, from the
installed collection's ``.ps1``, from its documentation.  Modules of the new style (``Ansible.Basic``) declare a literal
``$spec``; modules of the old style call ``Get-AnsibleParam`` for each option.

Sources: ``Ansible.Basic.cs`` (rules, their order, message texts) and ``Ansible.ModuleUtils.Legacy.psm1`` of
ansible-core 2.21.  Not checked here: what a module's own code checks later, values of types that are script blocks,
expansion of environment variables in paths (the host's business).
"""

from __future__ import annotations

import ast
import difflib
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml

from rehearsal.interfaces import RehearsalError
from rehearsal.winrm.powershell import LiteralReader, PowerShellSyntaxError, Unevaluated


class ModuleArgumentError(Exception):
    """A module refuses its arguments; the text is the module's ``msg``."""


@dataclass(frozen=True)
class Option:
    """One option. ``type`` is ``delegate`` when a script block converts the value."""

    type: str = "str"
    required: bool = False
    default: Any = None
    choices: tuple[Any, ...] | None = ()
    """None: the script computes them, and no documentation tells."""
    aliases: tuple[str, ...] = ()
    elements: str | None = None
    no_log: bool = False
    apply_defaults: bool = False
    deprecated: str = ""
    deprecated_aliases: tuple[str, ...] = ()
    spec: Spec | None = None
    """The specification of the option's own options."""


@dataclass(frozen=True)
class Spec:
    """What a module, or a dictionary inside its arguments, accepts."""

    options: Mapping[str, Option] = field(default_factory=dict)
    mutually_exclusive: tuple[tuple[str, ...], ...] = ()
    required_together: tuple[tuple[str, ...], ...] = ()
    required_one_of: tuple[tuple[str, ...], ...] = ()
    required_if: tuple[tuple[Any, ...], ...] = ()
    required_by: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    supports_check_mode: bool = False
    legacy: bool = False
    free_form: bool = False
    """Further options are allowed: win_dsc takes the properties of any resource."""
    source: str = "script"


@dataclass(frozen=True)
class Checked:
    """Arguments as the module's code sees them: defaults filled in, types converted, absent options None."""

    arguments: dict[str, Any]
    warnings: tuple[str, ...]
    supports_check_mode: bool
    no_log: frozenset[str]
    """Top-level options (and aliases) whose values must not be shown."""


def check(module: str, arguments: Mapping[str, Any], *, script: str = "", ignore_unknown: bool = False) -> Checked:
    """Check a module's arguments as the module itself does; old-style modules refuse unknown options here, too.

    :param module: fully qualified name, such as ``ansible.windows.win_service``.
    :param arguments: without the internal ``_ansible_*`` ones.
    :param script: the module's script from the payload (``Request.script``).
    :param ignore_unknown: ``_ansible_ignore_unknown_opts`` of the payload.
    :raises ModuleArgumentError: with the module's own message.
    :raises RehearsalError: when nothing is known about the module, or about an option that it would ignore on Windows.
    """
    spec = specification(module, script)
    checker = (_LegacyChecker if spec.legacy else _BasicChecker)(module, ignore_unknown or spec.free_form)
    result = checker.run(spec, dict(arguments))
    hidden = {name for key, option in spec.options.items() if option.no_log for name in (key, *option.aliases)}
    return Checked(result, tuple(checker.warnings), spec.supports_check_mode, frozenset(hidden))


def specification(module: str, script: str = "") -> Spec:
    """Return what is known about a module's arguments.

    :raises RehearsalError: when neither a script nor an installed collection tells.
    """
    installed = _installed(module)
    texts = [script] if script else []
    if installed is not None and installed.suffix == ".ps1" and not script:
        texts.append(_read(str(installed)))
    for text in texts:
        spec = _from_script(text, module)
        if spec is not None:
            return spec
    documented = _documented(module)
    if documented is not None:
        return documented
    raise RehearsalError(
        f"module {module}: no argument specification: its script has no readable $spec or Get-AnsibleParam and no"
        " installed collection documents it; install its collection, or use another module"
    )


# ---------------------------------------------------------------------------------------------------- from the script

_CREATE: Final = re.compile(
    r"\[Ansible\.Basic\.AnsibleModule\]::Create\(\s*\$args\s*,\s*\$(?P<spec>\w+)\s*(?:,\s*@\((?P<fragments>[^()]*)\)\s*)?\)"
)
_OPTION_KEYS: Final = frozenset(
    {
        "aliases",
        "apply_defaults",
        "choices",
        "default",
        "deprecated_aliases",
        "elements",
        "mutually_exclusive",
        "no_log",
        "options",
        "removed_at_date",
        "removed_from_collection",
        "removed_in_version",
        "required",
        "required_by",
        "required_if",
        "required_one_of",
        "required_together",
        "supports_check_mode",
        "type",
    }
)
_TYPES: Final = frozenset({"bool", "dict", "float", "int", "json", "list", "path", "raw", "sid", "str"})


@lru_cache(maxsize=256)
def _from_script(script: str, module: str) -> Spec | None:
    match = _CREATE.search(script)
    if match is not None:
        return _from_literal(script, match, module)
    if "Get-AnsibleParam" in script:
        return _from_legacy(script, module)
    return None


def _from_literal(script: str, create: re.Match[str], module: str) -> Spec | None:
    table = LiteralReader(script).variable(create["spec"])
    if not isinstance(table, dict):
        return None
    for name in re.findall(r"[\w-]+", create["fragments"] or ""):
        fragment = _fragment_function(name, script, module)
        if fragment is None:
            return None
        table = _merge_fragment(table, fragment)
    return _complete(_spec(table, module), module)


def _merge_fragment(table: dict[str, Any], fragment: Mapping[str, Any]) -> dict[str, Any]:
    """Add what a shared fragment declares; the module's own words win (``MergeFragmentSpec``)."""
    merged = dict(table)
    for key, value in fragment.items():
        if key not in merged:
            merged[key] = value
        elif isinstance(value, dict):
            merged[key] = _merge_fragment(merged[key], value)
        elif isinstance(value, list):
            merged[key] = [*merged[key], *value]
    return merged


def _fragment_function(name: str, script: str, module: str) -> dict[str, Any] | None:
    """Find ``Function NAME { @{…} }`` in the module utilities of the module's collection."""
    for path in _utilities(script, module):
        text = _read(str(path))
        start = re.search(rf"(?im)^\s*Function\s+{re.escape(name)}\s*\{{", text)
        if start is not None:
            body = re.compile(r"(?:<#.*?#>|#[^\n]*|[^@#<])*@\{", re.DOTALL).match(text, start.end())
            return LiteralReader(text).hashtable(body.end()) if body else None
    return None


def _utilities(script: str, module: str) -> Iterable[Path]:
    pattern = r"(?im)^#\s*AnsibleRequires\s+-PowerShell\s+(\S+)"
    for name in re.findall(pattern, script):
        words = name.split(".")
        if name.startswith(".."):  # relative to plugins/modules of the module's own collection
            words = ["ansible_collections", *module.split(".")[:2], "plugins", *name.lstrip(".").split(".")]
        for folder in _collection_paths():
            path = folder.joinpath(*words).with_suffix(".psm1")
            if path.is_file():
                yield path


def _spec(table: Mapping[str, Any], module: str) -> Spec:
    _valid_keys(table, module)
    options = table.get("options") or {}
    if isinstance(options, Unevaluated):
        options = {}
    return Spec(
        options={str(name): _option(meta, module) for name, meta in options.items()},
        mutually_exclusive=_groups(table, "mutually_exclusive"),
        required_together=_groups(table, "required_together"),
        required_one_of=_groups(table, "required_one_of"),
        required_if=_groups(table, "required_if"),
        required_by={key: tuple(_list(names)) for key, names in (table.get("required_by") or {}).items()},
        supports_check_mode=table.get("supports_check_mode") is True,
    )


def _valid_keys(table: Mapping[str, Any], module: str) -> None:
    if unknown := sorted(key for key in table if key.lower() not in _OPTION_KEYS):
        raise RehearsalError(f"module {module}: argument spec entry contains an invalid key {unknown[0]!r}")


def _option(meta: Mapping[str, Any], module: str) -> Option:
    _valid_keys(meta, module)
    kind = meta.get("type", "str")
    elements = meta.get("elements")
    choices = meta.get("choices")
    return Option(
        type=kind if kind in _TYPES else "delegate",
        required=meta.get("required") is True,
        default=None if isinstance(meta.get("default"), Unevaluated) else meta.get("default"),
        choices=_known(choices),
        aliases=tuple(_list(meta.get("aliases"))),
        elements=None if elements is None else elements if elements in _TYPES else "delegate",
        no_log=meta.get("no_log") is True,
        apply_defaults=meta.get("apply_defaults") is True,
        deprecated=str(meta.get("removed_in_version") or meta.get("removed_at_date") or ""),
        deprecated_aliases=tuple(
            entry["name"] for entry in _list(meta.get("deprecated_aliases")) if isinstance(entry, dict)
        ),
        spec=_spec({**meta, "supports_check_mode": False}, module) if meta.get("options") else None,
    )


def _known(choices: Any) -> tuple[Any, ...] | None:
    """Return choices that are all literal; one that is not makes the whole list unknown."""
    values = choices if isinstance(choices, list) else [] if choices is None else [choices]
    return None if any(isinstance(value, Unevaluated) for value in values) else tuple(values)


def _groups(table: Mapping[str, Any], key: str) -> tuple[tuple[Any, ...], ...]:
    value = table.get(key)
    if not isinstance(value, list) or not value:
        return ()
    groups = value if isinstance(value[0], list) else [value]
    return tuple(tuple(group) for group in groups)


def _list(value: Any) -> list[Any]:
    if value is None or isinstance(value, Unevaluated):
        return []
    return value if isinstance(value, list) else [value]


# ------------------------------------------------------------------------------------------------- modules of old style

_CALL: Final = re.compile(r"Get-AnsibleParam\b(?P<arguments>(?:[^\n`]|`\r?\n|`.)*)", re.IGNORECASE)
_PARAMETER: Final = re.compile(
    r"\s-(?P<key>obj\w*|name|type|validateset|aliases|failifempty|default|resultobj|emptyattributefailmessage"
    r"|validateseterrormessage)(?=\s)",
    re.IGNORECASE,
)


def _from_legacy(script: str, module: str) -> Spec:
    reader = LiteralReader(script)
    options: dict[str, Option] = {}
    for call in _CALL.finditer(script):
        words = _legacy_words(call["arguments"], reader)
        name = words.get("name")
        if not isinstance(name, str) or isinstance(name, Unevaluated) or name.startswith("_ansible"):
            continue
        kind = words.get("type")
        options.setdefault(
            name,
            Option(
                type=kind if kind in _TYPES else "raw",
                required=words.get("failifempty") is True,
                default=None if isinstance(words.get("default"), Unevaluated) else words.get("default"),
                choices=_known(words.get("validateset")),
                aliases=tuple(_list(words.get("aliases"))),
            ),
        )
    supports = re.search(r"Parse-Args\b[^\n]*-supports_check_mode\s+\$true", script, re.IGNORECASE) is not None
    return _complete(Spec(options, supports_check_mode=supports, legacy=True), module)


def _legacy_words(text: str, reader: LiteralReader) -> dict[str, Any]:
    """Split ``-obj $params -name "state" -type "str" …`` into its parameters."""
    text = " " + text.split("|", 1)[0].rstrip()
    found = list(_PARAMETER.finditer(text))
    words: dict[str, Any] = {}
    ends = [match.start() for match in found[1:]] + [len(text)]
    for match, end in zip(found, ends, strict=False):
        source = text[match.end() : end].strip()
        key = match["key"].lower()
        words["obj" if key.startswith("obj") else key] = _legacy_value(source, reader)
    if "name" not in words:  # Get-AnsibleParam $params "name" …
        positional = re.match(r"""\s+\$\w+\s+["'](\w+)["']""", text)
        if positional is not None:
            words["name"] = positional[1]
        elif "obj" in words:
            positional = re.search(r"""-obj\w*\s+\$\w+\s+["'](\w+)["']""", text, re.IGNORECASE)
            words["name"] = positional[1] if positional else None
    return words


def _legacy_value(source: str, reader: LiteralReader) -> Any:
    if re.fullmatch(r"\$\w+", source):
        return reader.variable(source[1:])
    try:
        return LiteralReader(f"$value = {source}\n").variable("value")
    except PowerShellSyntaxError:
        return Unevaluated(source)


# ------------------------------------------------------------------------------------------- from installed collections


def _collection_paths() -> tuple[Path, ...]:
    """Folders that hold ``ansible_collections``, as ansible-core searches them."""
    configured = os.environ.get("ANSIBLE_COLLECTIONS_PATH", "").split(os.pathsep)
    usual = ["~/.ansible/collections", "/usr/share/ansible/collections"]
    candidates = [Path(name).expanduser() for name in (*configured, *usual, *sys.path) if name]
    return tuple(path for path in dict.fromkeys(candidates) if (path / "ansible_collections").is_dir())


@lru_cache(maxsize=1024)
def _installed(module: str) -> Path | None:
    """Return the file of a module: its ``.ps1`` if there is one, else its documentation."""
    words = module.split(".")
    if len(words) < 3:
        return None
    for folder in _collection_paths():
        base = folder.joinpath("ansible_collections", words[0], words[1], "plugins", "modules", *words[2:])
        for suffix in (".ps1", ".yml", ".yaml", ".py"):
            path = base.with_name(base.name + suffix)
            if path.is_file():
                return path
    return None


@lru_cache(maxsize=256)
def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8-sig")


@lru_cache(maxsize=256)
def _documented(module: str) -> Spec | None:
    """Return the specification that a module's documentation describes."""
    installed = _installed(module)
    if installed is None:
        return None
    for suffix in (".yml", ".yaml", ".py"):
        path = installed.with_suffix(suffix)
        if path.is_file():
            document = _documentation(path)
            if document is not None:
                return _described(document, module)
    return None


def _documentation(path: Path) -> dict[str, Any] | None:
    text = _read(str(path))
    if path.suffix != ".py":
        document = yaml.safe_load(text)
        return document.get("DOCUMENTATION") if isinstance(document, dict) else None
    source = _assigned_text(ast.parse(text), "DOCUMENTATION")
    return yaml.safe_load(source) if source else None


def _assigned_text(tree: ast.AST, name: str) -> str | None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(
            isinstance(goal, ast.Name) and goal.id == name for goal in node.targets
        ):
            value = ast.literal_eval(node.value)
            return value if isinstance(value, str) else None
    return None


def _described(document: Mapping[str, Any], module: str) -> Spec:
    options = dict(document.get("options") or {})
    for name in _list(document.get("extends_documentation_fragment")):
        for key, meta in _documentation_fragment(str(name)).items():
            options.setdefault(key, meta)
    support = (document.get("attributes") or {}).get("check_mode") or {}
    free_form = options.pop("free_form", None) is not None
    spec = replace(_described_options(options), free_form=free_form)
    return replace(spec, supports_check_mode=support.get("support") in ("full", "partial"), source="documentation")


def _described_options(options: Mapping[str, Any]) -> Spec:
    return Spec({str(name): _described_option(meta) for name, meta in options.items()})


def _described_option(meta: Mapping[str, Any]) -> Option:
    kind = meta.get("type", "str")
    choices = meta.get("choices")
    default = meta.get("default")
    return Option(
        type=kind if kind in _TYPES else "raw",
        required=bool(meta.get("required")),
        default=None if meta.get("required") else default,
        choices=tuple(choices) if isinstance(choices, list | dict) else (),
        aliases=tuple(meta.get("aliases") or ()),
        elements=meta.get("elements") if meta.get("elements") in _TYPES else None,
        spec=_described_options(meta["suboptions"]) if meta.get("suboptions") else None,
    )


def _documentation_fragment(name: str) -> dict[str, Any]:
    """Return the options of ``NAMESPACE.COLLECTION.FRAGMENT[.PART]``; ansible-core's own fragments have none for us."""
    words = name.split(".")
    if len(words) < 3:
        return {}
    part = words[3].upper() if len(words) > 3 else "DOCUMENTATION"
    for folder in _collection_paths():
        path = folder.joinpath("ansible_collections", *words[:2], "plugins", "doc_fragments", f"{words[2]}.py")
        if path.is_file():
            source = _assigned_text(ast.parse(_read(str(path))), part)
            return dict((yaml.safe_load(source) or {}).get("options") or {}) if source else {}
    return {}


def _complete(spec: Spec, module: str) -> Spec:
    """Fill in from the documentation what the script computes: choices, and nested options of old-style modules."""
    documented = _documented(module)
    if documented is None:
        return spec
    options = dict(spec.options)
    for name, described in documented.options.items():
        option = options.get(name)
        if option is None:
            if spec.legacy:  # read in another way than Get-AnsibleParam, for example by the action plugin
                options[name] = replace(described, required=False, default=None, choices=())
            continue
        if option.choices is None:
            option = replace(option, choices=described.choices)
        if spec.legacy and described.spec is not None:
            option = replace(option, spec=described.spec, elements=described.elements)
        options[name] = option
    return replace(spec, options=options)


# ------------------------------------------------------------------------------------------------ Ansible.Basic's rules

_TRUE: Final = ("y", "yes", "on", "1", "true", "t", "1.0")
_FALSE: Final = ("n", "no", "off", "0", "false", "f", "0.0")
_INVALID_PATH: Final = re.compile('["<>|\x00-\x1f]')
_INTEGER: Final = re.compile(r"\s*[-+]?\d+\s*")
_FLOAT: Final = re.compile(r"\s*[-+]?(\d[\d,]*\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")


class _ConversionError(Exception):
    """A value does not fit its type; the text is .NET's."""


class _BasicChecker:
    """The constructor of ``Ansible.Basic.AnsibleModule``: same rules, same order, same messages."""

    def __init__(self, module: str, ignore_unknown: bool) -> None:
        self.module = module
        self.ignore_unknown = ignore_unknown
        self.warnings: list[str] = []
        self._context: list[str] = []

    def run(self, spec: Spec, arguments: dict[str, Any]) -> dict[str, Any]:
        aliases = self._aliases(spec, arguments)
        return self._check(spec, arguments, [*spec.options, *aliases])

    def _fail(self, message: str) -> ModuleArgumentError:
        where = f" found in {' -> '.join(self._context)}" if self._context else ""
        return ModuleArgumentError(message + where)

    def _aliases(self, spec: Spec, arguments: dict[str, Any]) -> list[str]:
        aliases = []
        for name, option in spec.options.items():
            for alias in option.aliases:
                aliases.append(alias)
                if alias in arguments:
                    arguments[name] = arguments[alias]
            for alias in option.deprecated_aliases:
                if alias in arguments:
                    self.warnings.append(f"Alias '{alias}' is deprecated. See the module docs for more information")
            if option.deprecated and name in arguments:
                self.warnings.append(f"Param '{name}' is deprecated. See the module docs for more information")
        return aliases

    def _check(self, spec: Spec, arguments: dict[str, Any], legal: list[str]) -> dict[str, Any]:
        self._check_unsupported(arguments, legal)
        self._check_mutually_exclusive(spec, arguments)
        self._check_required(spec, arguments)
        for name, option in spec.options.items():
            if arguments.get(name) is not None:
                arguments[name] = self._convert_option(name, option, arguments[name])
        self._check_groups(spec, arguments)
        for name, option in spec.options.items():
            arguments.setdefault(name, None)
            arguments[name] = self._nested(name, option, arguments[name])
        return arguments

    def _check_unsupported(self, arguments: dict[str, Any], legal: list[str]) -> None:
        spelled = {name.lower(): name for name in legal}
        unsupported = sorted(name for name in arguments if name.lower() not in spelled)
        if unsupported and not self.ignore_unknown:
            message = f"Unsupported parameters for ({self.module}) module: {', '.join(unsupported)}"
            where = f" found in {' -> '.join(self._context)}" if self._context else ""
            raise ModuleArgumentError(f"{message}{where}. Supported parameters include: {', '.join(sorted(legal))}")
        for name in [name for name in arguments if name not in legal and name.lower() in spelled]:
            arguments[spelled[name.lower()]] = arguments.pop(name)

    def _check_mutually_exclusive(self, spec: Spec, arguments: Mapping[str, Any]) -> None:
        for group in spec.mutually_exclusive:
            if sum(name in arguments for name in group) > 1:
                raise self._fail(f"parameters are mutually exclusive: {', '.join(group)}")

    def _check_required(self, spec: Spec, arguments: dict[str, Any]) -> None:
        missing = []
        for name, option in spec.options.items():
            if option.default is not None and name not in arguments:
                arguments[name] = option.default
            if option.required and name not in arguments:
                missing.append(name)
        if missing:
            raise self._fail(f"missing required arguments: {', '.join(missing)}")

    def _convert_option(self, name: str, option: Option, value: Any) -> Any:
        try:
            converted = self._convert(option.type, value, name)
        except _ConversionError as error:
            raise self._fail(
                f"argument for {name} is of type {net_type(value)} and we were unable to convert to {option.type}:"
                f" {error}"
            ) from None
        if option.choices:
            choices = [net_text(choice) for choice in option.choices]
            values = [net_text(item) for item in converted] if option.type == "list" else [net_text(converted)]
            allowed = {choice.lower() for choice in choices}
            if different := list(dict.fromkeys(item for item in values if item.lower() not in allowed)):
                term = "one or more of" if option.type == "list" else "one of"
                raise self._fail(
                    f"value of {name} must be {term}: {', '.join(choices)}. Got no match for: {', '.join(different)}"
                )
        return converted

    def _convert(self, kind: str, value: Any, name: str) -> Any:
        if kind in ("str", "path", "sid") and isinstance(value, list | dict):
            self.warnings.append(
                f"{self.module}: option {name} takes a text, got a {'list' if isinstance(value, list) else 'dict'}:"
                f" the module sees {net_text(value)!r}"
            )
        return convert(kind, value)

    def _check_groups(self, spec: Spec, arguments: Mapping[str, Any]) -> None:
        for group in spec.required_together:
            if len({name in arguments for name in group}) > 1:
                raise self._fail(f"parameters are required together: {', '.join(group)}")
        for group in spec.required_one_of:
            if not any(name in arguments for name in group):
                raise self._fail(f"one of the following is required: {', '.join(group)}")
        for key, value, needed, *rest in spec.required_if:
            if arguments.get(key) is None or net_text(arguments[key]) != net_text(value):
                continue
            needed = _list(needed)
            any_of = rest == [True]
            missing = [name for name in needed if name not in arguments]
            if len(missing) >= (len(needed) if any_of else 1):
                term = "any" if any_of else "all"
                raise self._fail(
                    f"{key} is {net_text(value)} but {term} of the following are missing: {', '.join(missing)}"
                )
        for key, names in spec.required_by.items():
            if key in arguments and (missing := [name for name in names if name not in arguments]):
                raise self._fail(f"missing parameter(s) required by '{key}': {', '.join(missing)}")

    def _nested(self, name: str, option: Option, value: Any) -> Any:
        if option.type == "list" and option.elements is not None and value is not None:
            return [self._element(name, option, item) for item in value]
        if option.type == "dict":
            return self._dictionary(name, option, value)
        return value

    def _element(self, name: str, option: Option, item: Any) -> Any:
        kind = option.elements or "raw"
        if kind == "dict":
            return self._dictionary(name, option, item)
        try:
            return self._convert(kind, item, name)
        except _ConversionError:
            # Ansible.Basic shows the outer exception here, not what the conversion says.
            raise self._fail(
                f"argument for list entry {name} is of type {net_type(item)} and we were unable to convert to {kind}:"
                " Exception has been thrown by the target of an invocation."
            ) from None

    def _dictionary(self, name: str, option: Option, value: Any) -> Any:
        if option.spec is None or not option.spec.options:
            return value
        if value is None:
            if not option.apply_defaults:
                return None
            value = {}
        try:
            inner = dict(convert("dict", value))
        except _ConversionError as error:
            raise ModuleArgumentError(f'Exception calling "Create" with "2" argument(s): "{error}"') from None
        self._context.append(name)
        aliases = self._aliases(option.spec, inner)
        result = self._check(option.spec, inner, [*option.spec.options, *aliases])
        self._context.pop()
        return result


# What an action sends that its own script does not know, beside what begins with "_": no mistake of a playbook.
_SENT_BY_ACTION: Final[Mapping[str, tuple[str, ...]]] = {"ansible.windows.win_copy": ("symlinks",)}


class _LegacyChecker:
    """``Get-AnsibleParam``, but unknown options are refused: Windows ignores them, so a typing error would pass."""

    def __init__(self, module: str, ignore_unknown: bool) -> None:
        self.module = module
        self.ignore_unknown = ignore_unknown
        self.warnings: list[str] = []

    def run(self, spec: Spec, arguments: dict[str, Any]) -> dict[str, Any]:
        given = {name.lower(): name for name in arguments}
        result: dict[str, Any] = {}
        for name, option in spec.options.items():
            found = next((given.pop(key.lower()) for key in (name, *option.aliases) if key.lower() in given), None)
            for alias in option.aliases:
                given.pop(alias.lower(), None)
            if found is None:
                if option.required:
                    raise ModuleArgumentError(f"Get-AnsibleParam: Missing required argument: {name}")
                result[name] = option.default
            else:
                result[name] = self._value(found, option, arguments[found])
        for key in given.values():
            if not (self.ignore_unknown or key.startswith("_") or key in _SENT_BY_ACTION.get(self.module, ())):
                raise self._unknown(spec, key)
            result[key] = arguments[key]
        return result

    def _unknown(self, spec: Spec, key: str) -> RehearsalError:
        names = {name for option, meta in spec.options.items() for name in (option, *meta.aliases)}
        known = sorted(name for name in names if not name.startswith("_"))
        near = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        return RehearsalError(f"{self.module} does not know the option {key!r} and would ignore it on Windows: {hint}")

    def _value(self, name: str, option: Option, value: Any) -> Any:
        if option.choices:
            choices = [net_text(choice) for choice in option.choices]
            if net_text(value).lower() not in {choice.lower() for choice in choices}:
                raise ModuleArgumentError(
                    f"Get-AnsibleParam: Argument {name} needs to be one of {','.join(choices)} but was"
                    f" {net_text(value)}."
                )
        if value is None:
            return None
        match option.type:
            case "path" if _INVALID_PATH.search(net_text(value)):
                raise ModuleArgumentError(
                    f"Get-AnsibleParam: Parameter '{name}' has an invalid path '{net_text(value)}' specified."
                )
            case "path" | "str":
                converted: Any = net_text(value)
            case "bool":
                converted = value if isinstance(value, bool) else net_text(value).lower() in ("yes", "on", "1", "true")
            case "int":
                converted = round(float(value)) if _FLOAT.fullmatch(net_text(value)) else None
            case "float":
                converted = float(value) if _FLOAT.fullmatch(net_text(value)) else None
            case "list":
                converted = self._list(name, value)
            case _:
                converted = value
        self._warn_nested(name, option, converted)
        return converted

    @staticmethod
    def _list(name: str, value: Any) -> list[Any]:
        if isinstance(value, list):
            return value
        if isinstance(value, str):
            return [part.strip() for part in value.split(",")]
        if isinstance(value, int) and not isinstance(value, bool):
            return [value]
        raise ModuleArgumentError(f"Get-AnsibleParam: Parameter '{name}' is not a YAML list.")

    def _warn_nested(self, name: str, option: Option, value: Any) -> None:
        """Warn of keys that the documentation does not know; it lacks some, so the stand-in refuses what is wrong."""
        if option.spec is None:
            return
        legal = {key.lower() for inner, meta in option.spec.options.items() for key in (inner, *meta.aliases)}
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                for key in item:
                    if key.lower() not in legal:
                        self.warnings.append(
                            f"{self.module} does not document {key!r} in {name}; known: {', '.join(sorted(legal))}"
                        )


def convert(kind: str, value: Any) -> Any:
    """Convert a value as the named type of Ansible.Basic does; None is not allowed.

    :raises _ConversionError: with .NET's message.
    """
    match kind:
        case "bool":
            return _to_bool(value)
        case "int":
            return _to_int(value)
        case "float":
            text = net_text(value)
            if not _FLOAT.fullmatch(text):
                raise _ConversionError("Input string was not in a correct format.")
            return float(text.replace(",", ""))
        case "str" | "sid":
            return net_text(value)
        case "path":
            return _to_path(value)
        case "list":
            return _to_list(value)
        case "dict":
            return _to_dict(value)
        case "json":
            if isinstance(value, dict):
                return json.dumps(value)
            if isinstance(value, str):
                return value
            raise _ConversionError(f"{net_type(value)} cannot be converted to json")
    return value


def _to_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = net_text(value).lower().strip()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise _ConversionError(
        f"The value '{text}' is not a valid boolean. Valid booleans include: {', '.join((*_TRUE, *_FALSE))}"
    )


def _to_int(value: Any) -> int:
    text = net_text(value)
    if not _INTEGER.fullmatch(text):
        raise _ConversionError("Input string was not in a correct format.")
    number = int(text)
    if not -(2**31) <= number < 2**31:
        raise _ConversionError("Value was either too large or too small for an Int32.")
    return number


def _to_path(value: Any) -> str:
    text = net_text(value)
    if text.startswith("\\\\?\\"):
        return text
    if _INVALID_PATH.search(text):
        raise _ConversionError("string value contains invalid path characters, cannot convert to path")
    if not text.strip():
        raise _ConversionError("The path is not of a legal form.")
    if ":" in text[2:]:
        raise _ConversionError("The given path's format is not supported.")
    return text


def _to_list(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    if isinstance(value, int) and not isinstance(value, bool):
        return [value]
    raise _ConversionError(f"{net_type(value)} cannot be converted to a list")


def _to_dict(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    if not isinstance(value, str):
        raise _ConversionError(f"{net_type(value)} cannot be converted to a dict")
    if value.startswith("{") and value.endswith("}"):
        try:
            document: dict[str, Any] = json.loads(value)
        except json.JSONDecodeError as error:
            raise _ConversionError(f"Failed to parse JSON: {error}") from None
        return document
    if "=" not in value:
        raise _ConversionError(
            "string cannot be converted to a dict, must either be a JSON string or in the key=value form"
        )
    fields = (part.partition("=") for part in _split_fields(value))
    return {key: text if equals else None for key, equals, text in fields}


def _split_fields(text: str) -> list[str]:
    """Split ``key=value`` pairs at commas and blanks, minding quotes and backslashes."""
    fields = [""]
    quote = ""
    escaped = False
    for character in text:
        if escaped:
            fields[-1] += character
            escaped = False
        elif character == "\\":
            escaped = True
        elif not quote and character in "'\"":
            quote = character
        elif character == quote:
            quote = ""
        elif not quote and character in ", ":
            fields.append("")
        else:
            fields[-1] += character
    return [part for part in dict.fromkeys(fields) if part]


def net_type(value: Any) -> str:
    """Name the .NET type that a value of a payload has on the host."""
    match value:
        case bool():
            return "System.Boolean"
        case int():
            return "System.Int32" if -(2**31) <= value < 2**31 else "System.Int64"
        case float():
            return "System.Decimal"
        case str():
            return "System.String"
        case list():
            return "System.Object[]"
        case dict():
            return "System.Collections.Hashtable"
    return type(value).__name__


def net_text(value: Any) -> str:
    """Return what ``ToString()`` gives on the host."""
    if isinstance(value, bool):
        return "True" if value else "False"
    if isinstance(value, list | dict):
        return net_type(value)
    return "" if value is None else str(value)
