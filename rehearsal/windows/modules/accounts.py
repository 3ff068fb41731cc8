"""win_user, win_share, win_acl."""

from __future__ import annotations

import re
from typing import Any

from rehearsal.windows.accounts import User
from rehearsal.windows.errors import WindowsError
from rehearsal.windows.modules.base import Call

# ------------------------------------------------------------------------------------------------------------ win_user

_USER_OPTIONS = {  # option -> field of the user
    "account_disabled": "disabled",
    "account_expires": "expires",
    "fullname": "full_name",
    "description": "description",
    "home_directory": "home_directory",
    "login_script": "login_script",
    "password_expired": "password_expired",
    "password_never_expires": "password_never_expires",
    "profile": "profile",
    "user_cannot_change_password": "cannot_change_password",
}


def _user_diff(call: Call, user: User) -> dict[str, Any]:
    values = {option: getattr(user, name) for option, name in _USER_OPTIONS.items()}
    groups = [call.host.accounts.name(sid) for sid in user.groups]
    return {**values, "account_locked": False, "groups": groups, "name": user.name, "password": "REDACTED"}


def win_user(call: Call) -> None:
    """Make, change, delete or query a local user."""
    accounts = call.host.accounts
    name, state = call.text("name"), call.text("state")
    if call.get("account_locked"):
        raise call.fail("account_locked must be set to 'no' if provided")
    user = accounts.users.get(name.lower())
    call.diff = {"before": "" if user is None else _user_diff(call, user), "after": ""}
    if state == "absent":
        call.result["msg"] = f"User '{name}' was not found"
        if user is not None:
            if not call.check_mode:
                accounts.remove_user(user.name)
            call.changed()
            call.result["msg"] = f"User '{user.name}' deleted successfully"
            user = None
    elif state == "query":
        call.result["msg"] = f"Querying user '{name}'"
        call.diff["after"] = call.diff["before"]
    else:
        user = _present(call, user)
    call.result["state"] = ("absent" if user is None else "present") if state == "query" else state
    call.result["name"] = name
    user = accounts.users.get(name.lower())
    if user is not None:
        computer = call.host.computer_name
        call.result.update(
            fullname=user.full_name,
            path=f"WinNT://WORKGROUP/{computer}/{user.name}",
            description=user.description,
            password_expired=user.password_expired,
            password_never_expires=user.password_never_expires,
            user_cannot_change_password=user.cannot_change_password,
            account_disabled=user.disabled,
            account_locked=False,
            sid=accounts.sid_of_user(user),
            groups=[
                {
                    "name": accounts.name(sid).rpartition("\\")[2],
                    "path": f"WinNT://WORKGROUP/{computer}/{accounts.name(sid).rpartition(chr(92))[2]}",
                }
                for sid in user.groups
            ],
        )


def _present(call: Call, user: User | None) -> User | None:
    accounts, password = call.host.accounts, call.get("password")
    created = user is None
    if user is None:
        call.changed()
        call.diff["after"] = {"name": call.text("name"), **({"password": "REDACTED"} if password is not None else {})}
        if call.check_mode:
            return None
        user = accounts.add_user(call.text("name"), str(password or ""))
        user.groups = []  # the directory interface makes users that are in no group
    after = _user_diff(call, user)
    if password is not None and call.get("update_password") == "always" and not created:
        matches = not user.disabled and not user.password_expired and user.password == password
        if not matches:
            call.changed()
            after["password"] = "CHANGED REDACTED"
            if not call.check_mode:
                user.password = str(password)
                user.password_expired = False
    for option, field in _USER_OPTIONS.items():
        value = call.get(option)
        if value is not None and value != getattr(user, field):
            call.changed()
            after[option] = value
            if not call.check_mode:
                setattr(user, field, value)
    _groups(call, user, after)
    if not call.check_mode:
        accounts.save()
    call.diff["after"] = after
    return user


def _groups(call: Call, user: User, after: dict[str, Any]) -> None:
    accounts = call.host.accounts
    if call.get("groups") is None:
        return
    wanted = []
    for name in (name for name in call.get("groups") if name.strip()):
        try:
            sid = accounts.sid(name)
        except WindowsError:
            sid = ""
        if not accounts.is_local_group(sid):
            raise call.fail(f"group '{name}' not found")
        wanted.append(sid)
    action = call.text("groups_action")
    added = [] if action == "remove" else [sid for sid in dict.fromkeys(wanted) if sid not in user.groups]
    removed = {"add": [], "remove": [sid for sid in user.groups if sid in wanted]}.get(
        action, [sid for sid in user.groups if sid not in wanted]
    )
    if added or removed:
        call.changed()
        groups = [sid for sid in user.groups if sid not in removed] + added
        after["groups"] = [accounts.name(sid) for sid in groups]
        if not call.check_mode:
            user.groups = groups


# ----------------------------------------------------------------------------------------------------------- win_share


def win_share(call: Call) -> None:
    """Make, change or remove an SMB share with its permissions."""
    host, name = call.host, call.text("name")
    actions: list[str] = []
    call.result["actions"] = actions
    share = host.shares.get(name.lower())

    def change(action: str) -> bool:
        call.changed()
        actions.append(action)
        return not call.check_mode

    if call.get("state") == "absent":
        if share is not None and change(f"Remove-SmbShare -Force -Name {name}"):
            del host.shares[name.lower()]
            host.state.changed()
        return
    if not call.text("path"):
        raise call.fail("Get-AnsibleParam: Missing required argument: path")
    lists = {option: _accounts(call, option) for option in ("read", "change", "full", "deny")}
    path = call.path("path")
    if not host.files.exists(path):
        raise call.fail(f"{path} directory does not exist on the host")
    path = host.files.shown(path)
    path = path if len(path) == 3 else path.rstrip("\\")
    if share is None:
        if not change(f"New-SmbShare -Name {name} -Path {path}"):
            return
        share = _new_share(name, path)
    elif share["path"] != path:
        if change(f"Remove-SmbShare -Force -Name {name}"):
            share = _new_share(name, path)
        actions.append(f"New-SmbShare -Name {name} -Path {path}")
    if call.get("scope_name"):
        raise call.fail("rehearsal: scope_name is not modelled")
    for option, key, value in (
        ("Description", "description", call.text("description")),
        ("FolderEnumerationMode", "folder_enumeration", "Unrestricted" if call.get("list") else "AccessBased"),
        ("CachingMode", "caching", call.text("caching_mode")),
        ("EncryptData", "encrypt", bool(call.get("encrypt"))),
    ):
        if share[key] != value and change(f"Set-SmbShare -Force -Name {name} -{option} {value}"):
            share[key] = value
    _permissions(call, share, lists, change)
    if not call.check_mode:
        host.shares[name.lower()] = share
        if call.result["changed"]:
            host.state.changed()


def _new_share(name: str, path: str) -> dict[str, Any]:
    return {
        "name": name,
        "path": path,
        "description": "",
        "folder_enumeration": "Unrestricted",
        "caching": "Manual",
        "encrypt": False,
        "access": [{"account": "Everyone", "type": "Allow", "right": "Read"}],
    }


def _accounts(call: Call, option: str) -> list[str]:
    names = [name.strip() for name in call.text(option).split(",") if name.strip()]
    return [call.host.accounts.name(call.sid(name)) for name in names]


def _permissions(call: Call, share: dict[str, Any], lists: dict[str, list[str]], change: Any) -> None:
    full, edit, read, deny = lists["full"], lists["change"], lists["read"], lists["deny"]
    edit = [account for account in edit if account not in full]
    read = [account for account in read if account not in full and account not in edit]
    wanted = {"Full": full, "Change": edit, "Read": read}
    access: list[dict[str, str]] = list(share["access"])
    name = share["name"]
    for entry in list(access):
        account, denied = entry["account"], entry["type"] == "Deny"
        chosen = deny if denied else wanted[entry["right"]]
        if account in chosen:
            chosen.remove(account)
        elif call.get("rule_action") == "set" and not (denied and account == "Everyone" and len(access) == 1):
            verb = "Unblock" if denied else "Revoke"
            if change(f"{verb}-SmbShareAccess -Force -Name {name} -AccountName {account}"):
                access.remove(entry)
    for right in ("Read", "Change", "Full"):
        for account in wanted[right]:
            if change(f"Grant-SmbShareAccess -Force -Name {name} -AccountName {account} -AccessRight {right}"):
                access = [e for e in access if (e["account"], e["type"]) != (account, "Allow")]
                access.append({"account": account, "type": "Allow", "right": right})
    for account in deny:
        if change(f"Block-SmbShareAccess -Force -Name {name} -AccountName {account}"):
            access.append({"account": account, "type": "Deny", "right": "Full"})
    if not call.check_mode:
        share["access"] = access or [{"account": "Everyone", "type": "Deny", "right": "Full"}]


# ------------------------------------------------------------------------------------------------------------- win_acl

# Reference: Microsoft .NET, enumerations FileSystemRights, RegistryRights, InheritanceFlags, PropagationFlags.
_FILE_RIGHTS = {
    "readdata": 0x1, "listdirectory": 0x1, "writedata": 0x2, "createfiles": 0x2, "appenddata": 0x4,
    "createdirectories": 0x4, "readextendedattributes": 0x8, "writeextendedattributes": 0x10, "executefile": 0x20,
    "traverse": 0x20, "deletesubdirectoriesandfiles": 0x40, "readattributes": 0x80, "writeattributes": 0x100,
    "delete": 0x10000, "readpermissions": 0x20000, "changepermissions": 0x40000, "takeownership": 0x80000,
    "synchronize": 0x100000, "write": 0x116, "read": 0x20089, "readandexecute": 0x200A9, "modify": 0x301BF,
    "fullcontrol": 0x1F01FF,
}  # fmt: skip
_REGISTRY_RIGHTS = {
    "queryvalues": 0x1, "setvalue": 0x2, "createsubkey": 0x4, "enumeratesubkeys": 0x8, "notify": 0x10,
    "createlink": 0x20, "delete": 0x10000, "readpermissions": 0x20000, "changepermissions": 0x40000,
    "takeownership": 0x80000, "readkey": 0x20019, "executekey": 0x20019, "writekey": 0x20006, "fullcontrol": 0xF003F,
}  # fmt: skip
_INHERITANCE = {"none": 0, "containerinherit": 1, "objectinherit": 2}
_PROPAGATION = {"none": 0, "nopropagateinherit": 1, "inheritonly": 2}
_SYNCHRONIZE = 0x100000


def _flags(call: Call, names: dict[str, int], text: str, kind: str) -> int:
    value = 0
    for part in (part.strip().lower() for part in text.split(",")):
        if part not in names:
            raise call.fail(
                f"an error occurred when attempting to {call.text('state')} {call.text('rights')} permission(s) on "
                f'{call.text("path")} for {call.text("user")} - Cannot convert value "{text}" to type "{kind}".'
            )
        value |= names[part]
    return value


def win_acl(call: Call) -> None:
    """Add or remove an access rule. Rules are kept and compared; they grant and deny nothing here."""
    host, path = call.host, call.text("path")
    registry = bool(re.match(r"^HK(CC|CR|CU|LM|U):", path, re.IGNORECASE))
    exists = host.registry.exists(path) if registry else host.files.exists(path)
    if not exists:
        raise call.fail(f"{path} file or directory does not exist on the host")
    sid = call.sid(call.text("user"))
    inherit = call.text("inherit") or "ContainerInherit, ObjectInherit"
    if not registry and host.files.is_file(path):
        inherit = "None"
    names, kind = (_REGISTRY_RIGHTS, "RegistryRights") if registry else (_FILE_RIGHTS, "FileSystemRights")
    rights = _flags(call, names, call.text("rights"), f"System.Security.AccessControl.{kind}")
    allow = call.text("type") == "allow"
    if not registry and allow:
        rights |= _SYNCHRONIZE  # FileSystemAccessRule adds it to every rule that allows
    rule = {
        "sid": sid,
        "type": call.text("type"),
        "inherit": _flags(call, _INHERITANCE, inherit, "System.Security.AccessControl.InheritanceFlags"),
        "propagation": _flags(
            call, _PROPAGATION, call.text("propagation"), "System.Security.AccessControl.PropagationFlags"
        ),
        "rights": rights,
    }
    key = (host.registry.normal(path) if registry else host.files.shown(path)).lower()
    rules = host.access_rules.get(key, [])
    same = next((r for r in rules if {**r, "rights": 0} == {**rule, "rights": 0}), None)
    match = same is not None and same["rights"] == rights
    if call.get("state") == "present" and not match:
        call.changed()
        if not call.check_mode:
            if same is not None:  # .NET joins the rights of rules that are otherwise the same
                same["rights"] |= rights
            else:
                rules.append(rule)
            host.access_rules[key] = rules
            host.state.changed()
    elif call.get("state") == "absent" and match:
        call.changed()
        if not call.check_mode:
            host.access_rules[key] = [r for r in rules if r is not same]
            host.state.changed()
