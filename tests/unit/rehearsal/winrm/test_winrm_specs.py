"""Argument specifications of the installed collections, and the checker's messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rehearsal.interfaces import RehearsalError
from rehearsal.winrm import specs

WINDOWS = {"ansible.windows": 62, "community.windows": 54}  # as many as ansible 12 brings, the oldest
UNREADABLE = {"ansible.windows.win_dsc", "ansible.windows.win_feature"}  # dynamic: documentation is used


def scripts(collection: str) -> list[Path]:
    for folder in specs._collection_paths():
        found = sorted(folder.joinpath("ansible_collections", *collection.split("."), "plugins/modules").glob("*.ps1"))
        if found:
            return found
    raise AssertionError(f"{collection} is not installed")


@pytest.mark.parametrize("collection", WINDOWS)
def test_every_installed_module_has_a_specification(collection: str) -> None:
    found = {f"{collection}.{path.stem}" for path in scripts(collection)}
    sources = {name: specs.specification(name).source for name in found}
    assert len(found) >= WINDOWS[collection]
    assert {name for name, source in sources.items() if source != "script"} <= UNREADABLE


@pytest.mark.parametrize("collection", WINDOWS)
def test_scripts_and_documentation_agree(collection: str) -> None:
    """A spelling that only one side knows points at a misread script; choices must be the same."""
    known = {
        ("ansible.windows.win_dns_client", "log_path"),
        ("community.windows.win_firewall_rule", "edge"),
        ("community.windows.win_firewall_rule", "interfacetypes"),
        ("community.windows.win_firewall_rule", "security"),
        ("ansible.windows.win_copy", "directories"),  # sent by the action plugin
        ("ansible.windows.win_copy", "files"),
    }
    different = set()
    for path in scripts(collection):
        name = f"{collection}.{path.stem}"
        spec, documented = specs.specification(name), specs._documented(name)
        assert documented is not None
        different |= {
            (name, option)
            for option in set(spec.options) ^ set(documented.options)
            if not option.startswith("_") and (name, option) not in known
        }
    assert different == set()


SCRIPT = """
$kinds = @{ small = 1; big = 2 }
$spec = @{
    options = @{
        name = @{ type = 'str'; required = $true; aliases = @('title') }
        size = @{ type = 'int'; default = 5 }
        kind = @{ type = 'str'; choices = $kinds.Keys }
        on = @{ type = 'bool' }
        ratio = @{ type = 'float' }
        place = @{ type = 'path' }
        more = @{ type = 'dict' }
        tags = @{ type = 'list'; elements = 'str'; choices = 'x', 'y' }
        numbers = @{ type = 'list'; elements = 'int' }
        steps = @{ type = 'list'; elements = 'dict'; options = @{
            do = @{ type = 'str'; required = $true; choices = 'run', 'stop' }
            wait = @{ type = 'int'; default = 1 }
        } }
        user = @{ type = 'str' }
        password = @{ type = 'str'; no_log = $true }
        a = @{ type = 'str' }
        b = @{ type = 'str' }
        state = @{ type = 'str'; default = 'present'; choices = 'present', 'absent' }
        any = @{ type = [Func[[Object], [UInt32]]] { [UInt32]$args[0] } }
    }
    mutually_exclusive = @(,@('a', 'b'))
    required_together = @(,@('user', 'password'))
    required_one_of = @(,@('name', 'a'))
    required_if = @(,@('state', 'absent', @('kind')))
    required_by = @{ ratio = 'place' }
    supports_check_mode = $true
}
$module = [Ansible.Basic.AnsibleModule]::Create($args, $spec)
"""


def check(**arguments: Any) -> specs.Checked:
    return specs.check("acme.tools.thing", arguments, script=SCRIPT)


def test_defaults_types_and_absent_options() -> None:
    checked = check(
        name="n", on="yes", numbers="1,2", steps=[{"do": "RUN"}], more="k=v, l='a b'", ratio=1, place="C:\\x"
    )
    assert checked.arguments["size"] == 5
    assert checked.arguments["on"] is True
    assert checked.arguments["numbers"] == [1, 2]
    assert checked.arguments["steps"] == [{"do": "RUN", "wait": 1}]
    assert checked.arguments["more"] == {"k": "v", "l": "a b"}
    assert checked.arguments["kind"] is None
    assert checked.supports_check_mode
    assert checked.no_log == {"password"}
    assert checked.warnings == ()


def test_aliases_and_letter_case() -> None:
    assert check(title="n").arguments["name"] == "n"
    assert check(NAME="n").arguments["name"] == "n"


def test_null_counts_as_given() -> None:
    """As in Ansible.Basic: ``option:`` without a value is present, so no default and no 'missing'."""
    assert check(name=None, size=None).arguments["size"] is None


LEGAL = "a, any, b, kind, more, name, numbers, on, password, place, ratio, size, state, steps, tags, title, user"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "n", "nam": 1, "zoo": 2},
            f"Unsupported parameters for (acme.tools.thing) module: nam, zoo. Supported parameters include: {LEGAL}",
        ),
        ({"size": 1}, "missing required arguments: name"),
        ({"name": "n", "a": 1, "b": 2}, "parameters are mutually exclusive: a, b"),
        ({"name": "n", "user": "u"}, "parameters are required together: user, password"),
        ({"name": "n", "state": "absent"}, "state is absent but all of the following are missing: kind"),
        ({"name": "n", "ratio": 1}, "missing parameter(s) required by 'ratio': place"),
        ({"name": "n", "state": "gone"}, "value of state must be one of: present, absent. Got no match for: gone"),
        ({"name": "n", "kind": "tiny"}, "value of kind must be one of: small, big. Got no match for: tiny"),
        ({"name": "n", "tags": ["x", "q"]}, "value of tags must be one or more of: x, y. Got no match for: q"),
        (
            {"name": "n", "size": "many"},
            "argument for size is of type System.String and we were unable to convert to int:"
            " Input string was not in a correct format.",
        ),
        (
            {"name": "n", "size": 2**40},
            "argument for size is of type System.Int64 and we were unable to convert to int:"
            " Value was either too large or too small for an Int32.",
        ),
        (
            {"name": "n", "on": "maybe"},
            "argument for on is of type System.String and we were unable to convert to bool: The value 'maybe' is not a"
            " valid boolean. Valid booleans include: y, yes, on, 1, true, t, 1.0, n, no, off, 0, false, f, 0.0",
        ),
        (
            {"name": "n", "more": "word"},
            "argument for more is of type System.String and we were unable to convert to dict: string cannot be"
            " converted to a dict, must either be a JSON string or in the key=value form",
        ),
        (
            {"name": "n", "tags": {"x": 1}},
            "argument for tags is of type System.Collections.Hashtable and we were unable to convert to list:"
            " System.Collections.Hashtable cannot be converted to a list",
        ),
        (
            {"name": "n", "place": 'C:\\a"b'},
            "argument for place is of type System.String and we were unable to convert to path: string value contains"
            " invalid path characters, cannot convert to path",
        ),
        (
            {"name": "n", "numbers": ["x"]},
            "argument for list entry numbers is of type System.String and we were unable to convert to int:"
            " Exception has been thrown by the target of an invocation.",
        ),
        ({"name": "n", "steps": [{"wait": 1}]}, "missing required arguments: do found in steps"),
        (
            {"name": "n", "steps": [{"do": "run", "x": 1}]},
            "Unsupported parameters for (acme.tools.thing) module: x found in steps."
            " Supported parameters include: do, wait",
        ),
        (
            {"name": "n", "steps": ["run"]},
            'Exception calling "Create" with "2" argument(s): "string cannot be converted to a dict, must either be a'
            ' JSON string or in the key=value form"',
        ),
    ],
)
def test_messages_are_those_of_the_module(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(specs.ModuleArgumentError) as refused:
        check(**arguments)
    assert str(refused.value) == message


def test_a_list_for_a_text_is_what_the_module_sees_and_a_warning() -> None:
    checked = check(name=["a", "b"])
    assert checked.arguments["name"] == "System.Object[]"
    assert "option name takes a text, got a list" in checked.warnings[0]


def test_unknown_options_pass_when_the_payload_says_so() -> None:
    specs.check("acme.tools.thing", {"name": "n", "zoo": 1}, script=SCRIPT, ignore_unknown=True)


def test_real_module_of_the_new_style() -> None:
    with pytest.raises(specs.ModuleArgumentError, match="one of: auto, manual, disabled, delayed"):
        specs.check("ansible.windows.win_service", {"name": "x", "start_mode": "fast"})
    assert specs.check("ansible.windows.win_service", {"name": "x"}).supports_check_mode


def test_options_of_a_shared_fragment() -> None:
    checked = specs.check("ansible.windows.win_get_url", {"url": "http://x/y", "dest": "C:\\y", "url_timeout": "7"})
    assert checked.arguments["url_timeout"] == 7
    assert checked.arguments["http_agent"] == "ansible-httpget"
    assert {"url_password", "proxy_password"} <= checked.no_log


def test_choices_that_are_keys_of_a_table() -> None:
    with pytest.raises(specs.ModuleArgumentError, match=r"provider must be one of: .*msi.*auto"):
        specs.check("ansible.windows.win_package", {"path": "x", "provider": "zip"})


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        (
            "ansible.windows.win_file",
            {"path": "C:\\x", "recurs": True},
            r"ansible\.windows\.win_file does not know the option 'recurs' .* on Windows: known: .*path, ",
        ),
        ("ansible.windows.win_file", {"path": "C:\\x", "stat": "absent"}, r"'stat' .*: did you mean 'state'\?"),
        ("ansible.windows.slurp", {"scr": "C:\\x", "src": "C:\\y"}, r"'scr' .*: did you mean 'src'\?"),
    ],
)
def test_modules_of_the_old_style_refuse_what_windows_would_ignore(
    module: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(RehearsalError, match=message):
        specs.check(module, arguments)
    specs.check(module, arguments, ignore_unknown=True)


def test_modules_of_the_old_style_take_aliases_any_case_and_what_actions_tell_them() -> None:
    checked = specs.check("ansible.windows.win_file", {"Dest": "C:\\x", "State": "directory", "_told": True})
    assert checked.arguments["path"] == "C:\\x"
    assert checked.arguments["_told"] is True
    assert checked.warnings == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"state": "directory"}, "Get-AnsibleParam: Missing required argument: path"),
        (
            {"path": "C:\\x", "state": "folder"},
            "Get-AnsibleParam: Argument state needs to be one of absent,directory,file,touch but was folder.",
        ),
        ({"path": "C:\\a|b"}, "Get-AnsibleParam: Parameter 'path' has an invalid path 'C:\\a|b' specified."),
    ],
)
def test_messages_of_the_old_style(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(specs.ModuleArgumentError) as refused:
        specs.check("ansible.windows.win_file", arguments)
    assert str(refused.value) == message


def test_old_style_conversions_and_nested_warnings() -> None:
    name = "community.windows.win_scheduled_task"
    checked = specs.check(
        name, {"name": "t", "actions": [{"path": "a.exe", "arg": "x"}], "enabled": "yes", "priority": "4"}
    )
    assert checked.arguments["enabled"] is True
    assert checked.arguments["priority"] == 4
    assert checked.arguments["state"] == "present"
    assert any("does not document 'arg' in actions" in warning for warning in checked.warnings)
    with pytest.raises(specs.ModuleArgumentError, match="'actions' is not a YAML list"):
        specs.check(name, {"name": "t", "actions": {"path": "a.exe"}})


def test_unknown_module_is_an_error() -> None:
    with pytest.raises(RehearsalError, match=r"module acme\.tools\.nothing: no argument specification"):
        specs.check("acme.tools.nothing", {})


def test_free_form_of_win_dsc() -> None:
    assert specs.check("ansible.windows.win_dsc", {"resource_name": "File", "Type": "x"}).arguments["Type"] == "x"


def test_invalid_key_of_a_specification_is_an_error() -> None:
    with pytest.raises(RehearsalError, match="invalid key 'requird'"):
        specs.check("acme.tools.bad", {}, script=SCRIPT.replace("required = $true; al", "requird = $true; al"))
