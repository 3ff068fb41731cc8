"""The cmdlets of the bootstrap script and of Ansible's own texts.

Each names its parameters; an unknown one is an error, as in PowerShell.  Texts of errors are those of Windows
PowerShell 5.1 where they are known to us.
"""

from __future__ import annotations

import fnmatch
import ntpath
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import AddressValueError
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from rehearsal.windows import certificates, firewall, http
from rehearsal.windows.errors import WindowsError
from rehearsal.windows.powershell import syntax
from rehearsal.windows.powershell.values import PsError, PsObject, lookup, text
from rehearsal.windows.processes import PRIORITIES
from rehearsal.windows.registry import Registry
from rehearsal.windows.smb import Mapping

if TYPE_CHECKING:
    from rehearsal.windows.host import WindowsHost

VALUE, SWITCH = "value", "switch"
_SECURE_STRING = "System.Security.SecureString"
_SERVER_AUTHENTICATION = "1.3.6.1.5.5.7.3.1"
_FILE_TIME_EPOCH = 11644473600  # seconds from 1601 to 1970


@dataclass(frozen=True)
class Context:
    """What a cmdlet works with: the host, the objects that came through the pipeline, and how to run a script block."""

    host: WindowsHost
    user: str
    flow: list[Any]
    test: Callable[[syntax.Block, Any], Awaitable[bool]]


Function = Callable[[Context, dict[str, Any]], Awaitable[Any]]


@dataclass(frozen=True)
class Cmdlet:
    """A cmdlet: parameter -> value or switch; ``positional`` names those that need no name; ``required`` must be."""

    name: str
    function: Function
    parameters: dict[str, str]
    positional: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    choices: dict[str, tuple[str, ...]] = field(default_factory=dict)
    takes_pipeline: bool = False


CMDLETS: dict[str, Cmdlet] = {}


def _cmdlet(
    name: str,
    values: str,
    switches: str = "",
    *,
    positional: str = "",
    required: str = "",
    choices: dict[str, tuple[str, ...]] | None = None,
    takes_pipeline: bool = False,
) -> Callable[[Function], Function]:
    def register(function: Function) -> Function:
        parameters = dict.fromkeys((values + " ErrorAction").split(), VALUE)
        parameters |= dict.fromkeys(switches.split(), SWITCH)
        CMDLETS[name.lower()] = Cmdlet(
            name,
            function,
            parameters,
            tuple(positional.split()),
            tuple(required.split()),
            {**(choices or {}), "ErrorAction": ("SilentlyContinue", "Stop", "Continue", "Ignore")},
            takes_pipeline,
        )
        return function

    return register


def bind(cmdlet: Cmdlet, arguments: list[Any]) -> dict[str, Any]:
    """Parameter -> value for the arguments of a call; PsError as PowerShell when they do not fit."""
    names = {name.lower(): name for name in cmdlet.parameters}
    bound: dict[str, Any] = {}
    free = list(cmdlet.positional)
    remaining = iter(arguments)
    for argument in remaining:
        if not isinstance(argument, syntax.Parameter):
            name = next((name for name in free if name not in bound), None)
            if name is None:
                raise PsError(
                    f"{cmdlet.name} : A positional parameter cannot be found that accepts argument '{text(argument)}'."
                )
            bound[name] = argument
            continue
        found = names.get(argument.name.lower())
        if found is None:
            raise PsError(f"{cmdlet.name} : A parameter cannot be found that matches parameter name '{argument.name}'.")
        if found in bound:
            raise PsError(
                f"{cmdlet.name} : Cannot bind parameter because parameter '{found}' is specified more than once."
            )
        if cmdlet.parameters[found] == SWITCH:
            given = argument.value
            bound[found] = bool(given.value) if isinstance(given, syntax.Literal) else True
            continue
        value = argument.value.value if isinstance(argument.value, syntax.Literal) else next(remaining, None)
        if value is None or isinstance(value, syntax.Parameter):
            raise PsError(f"{cmdlet.name} : Missing an argument for parameter '{found}'.")
        bound[found] = value
    for name, allowed in cmdlet.choices.items():
        if name in bound and str(bound[name]).lower() not in (choice.lower() for choice in allowed):
            raise PsError(
                f"{cmdlet.name} : Cannot validate argument on parameter '{name}'. The argument \"{text(bound[name])}\" "
                f'does not belong to the set "{",".join(allowed)}".'
            )
    missing = [name for name in cmdlet.required if name not in bound]
    if missing:
        raise PsError(
            f"{cmdlet.name} : Cannot process command because of one or more missing mandatory parameters: "
            f"{' '.join(missing)}."
        )
    return bound


def _strings(value: Any) -> list[str]:
    return [text(item) for item in value] if isinstance(value, list) else [text(value)]


# ---------------------------------------------------------------------------------------------------------------- web


@_cmdlet("Invoke-RestMethod", "Method Uri Headers TimeoutSec", positional="Uri", required="Uri")
async def _invoke_rest_method(context: Context, values: dict[str, Any]) -> Any:
    headers = values.get("Headers", {})
    if not isinstance(headers, dict):
        raise PsError("Cannot bind parameter 'Headers'. Cannot convert it to type System.Collections.IDictionary.")
    method = text(values.get("Method", "Get")).upper()
    if method not in ("GET", "PUT", "POST", "HEAD", "DELETE"):
        raise PsError(f"Cannot bind parameter 'Method'. Unable to match the identifier name {values['Method']}.")
    sent = {str(name): text(value) for name, value in headers.items()}
    try:
        timeout = float(values.get("TimeoutSec", 100)) or 100
        answer = await http.request(context.host, method, text(values["Uri"]), headers=sent, timeout=timeout)
    except http.HttpError as error:
        raise PsError(str(error)) from error
    if "json" in answer.headers.get("content-type", ""):
        raise PsError("rehearsal: Invoke-RestMethod with a JSON answer is not modelled")
    return answer.body.decode("utf-8", errors="replace")


# -------------------------------------------------------------------------------------------------------- certificates


@_cmdlet(
    "New-SelfSignedCertificate",
    "Subject DnsName TextExtension CertStoreLocation KeyAlgorithm KeyLength KeyUsage FriendlyName HashAlgorithm",
    positional="",
    choices={"KeyAlgorithm": ("RSA",), "HashAlgorithm": ("SHA256",)},
)
async def _new_self_signed_certificate(context: Context, values: dict[str, Any]) -> Any:
    store = text(values.get("CertStoreLocation", "Cert:\\LocalMachine\\My"))
    if store.lower().rstrip("\\") != "cert:\\localmachine\\my":
        raise PsError(f"rehearsal: the certificate store {store} is not modelled; use Cert:\\LocalMachine\\My")
    length = int(values.get("KeyLength", 2048))
    if length not in (2048, 3072, 4096):
        raise PsError(f"rehearsal: a key length of {length} is not modelled")
    usage = tuple(part.strip() for entry in _strings(values.get("KeyUsage", [])) for part in entry.split(","))
    request = certificates.Request(
        subject=text(values.get("Subject", "")),
        dns_names=tuple(_strings(values.get("DnsName", []))),
        text_extensions=tuple(_strings(values.get("TextExtension", []))),
        key_usage=tuple(part for part in usage if part),
        key_length=length,
    )
    try:
        certificate, key = certificates.self_signed(request)
    except (ValueError, AddressValueError) as error:
        raise PsError(str(error)) from error
    stored = context.host.certificates.add(certificates.MY, certificate, key, text(values.get("FriendlyName", "")))
    return _certificate(stored)


def _certificate(stored: certificates.StoredCertificate) -> PsObject:
    certificate = stored.certificate
    return PsObject(
        "System.Security.Cryptography.X509Certificates.X509Certificate2",
        {
            "Thumbprint": stored.thumbprint,
            "Subject": certificate.subject.rfc4514_string(),
            "Issuer": certificate.issuer.rfc4514_string(),
            "RawData": certificate.public_bytes(serialization.Encoding.DER),
            "FriendlyName": stored.friendly_name,
            "HasPrivateKey": True,
            "PSPath": f"Microsoft.PowerShell.Security\\Certificate::{stored.store}\\{stored.thumbprint}",
        },
    )


# ------------------------------------------------------------------------------------------------------------ services


@_cmdlet(
    "Set-Service",
    "Name StartupType Status DisplayName Description",
    positional="Name",
    required="Name",
    choices={"StartupType": ("Automatic", "Manual", "Disabled"), "Status": ("Running", "Stopped")},
)
async def _set_service(context: Context, values: dict[str, Any]) -> Any:
    services = context.host.services
    service = services.find(text(values["Name"]))
    if service is None:
        raise PsError(f"Service {values['Name']} was not found on computer '.'.")
    if "StartupType" in values:
        kinds = {"automatic": "auto", "manual": "demand", "disabled": "disabled"}
        service.start = kinds[text(values["StartupType"]).lower()]  # type: ignore[assignment]
    service.display_name = text(values.get("DisplayName", service.display_name))
    service.description = text(values.get("Description", service.description))
    services.save(service)
    if text(values.get("Status", "")).lower() == "running":
        await start_service(context.host, service.name)
    elif "Status" in values:
        await stop_service(context.host, service.name)


async def start_service(host: WindowsHost, name: str) -> None:
    """Start-Service: nothing when it runs; PsError with PowerShell's text when it does not start."""
    service = host.services.get(name)
    if host.services.status(name).state == "running":
        return
    try:
        await host.services.start(name)
    except WindowsError as error:
        title = f"'{service.display_name} ({service.name})'"
        if error.code == 1053:
            raise PsError(f"Failed to start service {title}.") from error
        raise PsError(
            f"Service {title} cannot be started due to the following error: Cannot start service {service.name} on "
            f"computer '.'. ({error})"
        ) from error


async def stop_service(host: WindowsHost, name: str, *, force: bool = False) -> None:
    """Stop-Service: nothing when it does not run; PsError when others need it and ``force`` is not set."""
    service = host.services.get(name)
    if host.services.status(name).state == "stopped":
        return
    try:
        await host.services.stop(name, force=force)
    except WindowsError as error:
        title = f"'{service.display_name} ({service.name})'"
        if error.code == 1051:
            raise PsError(
                f"Cannot stop service {title} because it has dependent services. It can only be stopped if the Force "
                "flag is set."
            ) from error
        raise PsError(f"Service {title} cannot be stopped due to the following error: {error}") from error


async def _change_services(context: Context, values: dict[str, Any], verb: str) -> None:
    for name in _strings(values["Name"]):
        service = context.host.services.find(name)
        if service is None:
            raise PsError(f"Cannot find any service with service name '{name}'.")
        if verb in ("stop", "restart"):
            await stop_service(context.host, service.name, force=bool(values.get("Force")))
        if verb in ("start", "restart"):
            await start_service(context.host, service.name)
    await context.host.update_listeners()


@_cmdlet("Start-Service", "Name", positional="Name", required="Name")
async def _start(context: Context, values: dict[str, Any]) -> Any:
    await _change_services(context, values, "start")


@_cmdlet("Stop-Service", "Name", "Force", positional="Name", required="Name")
async def _stop(context: Context, values: dict[str, Any]) -> Any:
    await _change_services(context, values, "stop")


@_cmdlet("Restart-Service", "Name", "Force", positional="Name", required="Name")
async def _restart(context: Context, values: dict[str, Any]) -> Any:
    await _change_services(context, values, "restart")


@_cmdlet("Get-Service", "Name", positional="Name", required="Name")
async def _get_service(context: Context, values: dict[str, Any]) -> Any:
    service = context.host.services.find(text(values["Name"]))
    if service is None:
        raise PsError(f"Cannot find any service with service name '{values['Name']}'.")
    kinds = {"auto": "Automatic", "delayed": "Automatic", "demand": "Manual", "disabled": "Disabled"}
    status = context.host.services.status(service.name).state.title().replace("_", "")
    return PsObject(
        "System.ServiceProcess.ServiceController",
        {
            "Name": service.name,
            "DisplayName": service.display_name,
            "Status": status,
            "StartType": kinds[service.start],
        },
    )


# ----------------------------------------------------------------------------------------------- items, WSMan listeners


_LISTENERS = "wsman:\\localhost\\listener"


def _need_winrm(context: Context) -> None:
    if context.host.services.status("WinRM").state != "running":
        raise PsError(
            "The client cannot connect to the destination specified in the request. Verify that the service on the "
            "destination is running and is accepting requests."
        )


@_cmdlet("Get-ChildItem", "Path LiteralPath", positional="Path")
async def _get_child_item(context: Context, values: dict[str, Any]) -> Any:
    path = text(values.get("LiteralPath", values.get("Path", "")))
    lowered = path.lower().rstrip("\\")
    if lowered == _LISTENERS:
        _need_winrm(context)
        return [
            PsObject(
                "Microsoft.WSMan.Management.WSManConfigContainerElement",
                {
                    "Keys": [f"Transport={listener['Transport']}", f"Address={listener['Address']}"],
                    "Listener": listener,
                },
            )
            for listener in context.host.winrm_settings["listeners"]
        ]
    if lowered == "cert:\\localmachine\\my":
        return [_certificate(stored) for stored in context.host.certificates.list()]
    raise PsError(f"rehearsal: Get-ChildItem of {path!r} is not modelled")


@_cmdlet("Where-Object", "FilterScript", positional="FilterScript", required="FilterScript", takes_pipeline=True)
async def _where_object(context: Context, values: dict[str, Any]) -> Any:
    block = values["FilterScript"]
    if not isinstance(block, syntax.Block):
        raise PsError("rehearsal: Where-Object needs a script block here")
    return [item for item in context.flow if await context.test(block, item)]


@_cmdlet("Remove-Item", "Path LiteralPath", "Recurse Force", positional="Path", takes_pipeline=True)
async def _remove_item(context: Context, values: dict[str, Any]) -> Any:
    path = values.get("LiteralPath", values.get("Path"))
    if path is not None:
        for entry in _strings(path):
            _remove(context, entry, values)
        return
    for item in context.flow:
        if isinstance(item, PsObject) and "Listener" in item.properties:
            context.host.winrm_settings["listeners"].remove(item.properties["Listener"])
        elif isinstance(item, PsObject) and "Thumbprint" in item.properties:
            context.host.certificates.remove(item.properties["Thumbprint"])
        else:
            raise PsError(f"rehearsal: Remove-Item of {text(item)} is not modelled")
    context.host.state.changed()
    await context.host.update_listeners()


def _remove(context: Context, path: str, values: dict[str, Any]) -> None:
    host = context.host
    if path[:2].upper() == "HK":
        if not host.registry.delete(path):
            raise PsError(f"Cannot find path '{path}' because it does not exist.")
        return
    if not host.files.exists(path):
        raise PsError(f"Cannot find path '{path}' because it does not exist.")
    if host.files.is_directory(path) and host.files.names(path) and not values.get("Recurse"):
        raise PsError(f"The item at {path} has children and the Recurse parameter was not specified.")
    host.files.delete(path, force=bool(values.get("Force")))


@_cmdlet("Get-Item", "Path LiteralPath", positional="Path")
async def _get_item(context: Context, values: dict[str, Any]) -> Any:
    path = text(values.get("LiteralPath", values.get("Path", "")))
    found = context.host.registry.exists(path) if path[:2].upper() == "HK" else context.host.files.exists(path)
    if not found:
        raise PsError(f"Cannot find path '{path}' because it does not exist.")
    shown = Registry.normal(path) if path[:2].upper() == "HK" else context.host.files.shown(path)
    return PsObject("Item", {"Name": shown.rpartition("\\")[2], "FullName": shown})


@_cmdlet("New-WSManInstance", "ResourceURI SelectorSet ValueSet", required="ResourceURI SelectorSet")
async def _new_wsman_instance(context: Context, values: dict[str, Any]) -> Any:
    if text(values["ResourceURI"]).lower() != "winrm/config/listener":
        raise PsError(f"rehearsal: New-WSManInstance of {values['ResourceURI']} is not modelled")
    _need_winrm(context)
    selectors, settings = values["SelectorSet"], values.get("ValueSet", {})
    unknown = [name for name in selectors if str(name).lower() not in ("address", "transport")]
    unknown += [
        name for name in settings if str(name).lower() not in ("certificatethumbprint", "hostname", "port", "enabled")
    ]
    transport = text(lookup(selectors, "Transport")).upper()
    if unknown or transport not in ("HTTP", "HTTPS") or lookup(selectors, "Address") is None:
        raise PsError(
            "The WS-Management service cannot process the request. The selectors or values do not match the resource."
        )
    host = context.host
    address = text(lookup(selectors, "Address"))
    if address != "*":
        raise PsError(f"rehearsal: a listener on the address {address} is not modelled; use *")
    if any(entry["Transport"] == transport for entry in host.winrm_settings["listeners"]):
        raise PsError("The WS-Management service cannot create the resource because it already exists.")
    thumbprint = text(lookup(settings, "CertificateThumbprint")).replace(" ", "").upper()
    if transport == "HTTPS":
        stored = host.certificates.get(thumbprint)
        if stored is None or stored.store != certificates.MY:
            raise PsError(
                "The WS-Management service cannot process the request. Cannot find the certificate that was requested."
            )
        usages = stored.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if _SERVER_AUTHENTICATION not in [usage.dotted_string for usage in usages]:
            raise PsError("rehearsal: the certificate of an HTTPS listener must allow server authentication")
    enabled = lookup(settings, "Enabled")
    listener = {
        "Address": address,
        "Transport": transport,
        "Port": int(lookup(settings, "Port") or (5986 if transport == "HTTPS" else 5985)),
        "Hostname": text(lookup(settings, "Hostname")),
        "Enabled": True if enabled is None else text(enabled).lower() == "true",
        "CertificateThumbprint": thumbprint,
    }
    host.winrm_settings["listeners"].append(listener)
    host.state.changed()
    await host.update_listeners()
    return PsObject("System.Xml.XmlElement", {"Address": address, "Transport": transport})


@_cmdlet("Set-Item", "Path LiteralPath Value", "Force", positional="Path Value", required="Value")
async def _set_item(context: Context, values: dict[str, Any]) -> Any:
    path = text(values.get("LiteralPath", values.get("Path", "")))
    if path.lower() != "wsman:\\localhost\\service\\auth\\basic":
        raise PsError(f"rehearsal: Set-Item of {path!r} is not modelled")
    _need_winrm(context)
    context.host.winrm_settings["basic"] = text(values["Value"]).lower() == "true"
    context.host.state.changed()


# ------------------------------------------------------------------------------------------------------------ firewall


@_cmdlet(
    "New-NetFirewallRule",
    "Name DisplayName Description Group Direction Protocol LocalPort RemotePort LocalAddress RemoteAddress Action "
    "Profile Enabled Program IcmpType",
    required="DisplayName",
    choices={
        "Direction": ("Inbound", "Outbound"),
        "Action": ("Allow", "Block"),
        "Enabled": ("True", "False"),
    },
)
async def _new_net_firewall_rule(context: Context, values: dict[str, Any]) -> Any:
    protocol = text(values.get("Protocol", "Any")).lower()
    if protocol not in firewall.PROTOCOLS and not protocol.isdigit():
        raise PsError("The protocol is invalid.")
    profiles = [part.strip().lower() for entry in _strings(values.get("Profile", "Any")) for part in entry.split(",")]
    if profiles != ["any"] and not set(profiles) <= set(firewall.PROFILES):
        raise PsError("Cannot bind parameter 'Profile'. Unable to match the identifier name.")
    rule = firewall.Rule(
        name=text(values["DisplayName"]),
        description=text(values.get("Description", "")),
        group=text(values.get("Group", "")),
        direction=1 if text(values.get("Direction", "Inbound")).lower() == "inbound" else 2,
        protocol=firewall.PROTOCOLS[protocol] if protocol in firewall.PROTOCOLS else int(protocol),
        local_ports=_list(values.get("LocalPort")),
        remote_ports=_list(values.get("RemotePort")),
        local_addresses=_list(values.get("LocalAddress")) or "*",
        remote_addresses=_list(values.get("RemoteAddress")) or "*",
        icmp=",".join(f"{kind}:*" for kind in _strings(values["IcmpType"])) if "IcmpType" in values else "",
        action=int(text(values.get("Action", "Allow")).lower() == "allow"),
        profiles=firewall.ALL_PROFILES if profiles == ["any"] else sum(firewall.PROFILES[part] for part in profiles),
        enabled=text(values.get("Enabled", "True")).lower() == "true",
        application=text(values.get("Program", "")),
    )
    if "Name" in values:
        rule.id = text(values["Name"])
    try:
        context.host.firewall.add(rule)
    except firewall.InvalidRule as error:
        raise PsError(str(error)) from error
    await context.host.apply_firewall()
    return PsObject("MSFT_NetFirewallRule", {"Name": rule.id, "DisplayName": rule.name})


def _list(value: Any) -> str:
    if value is None:
        return ""
    joined = ",".join(_strings(value))
    return "" if joined.lower() == "any" else joined


@_cmdlet("Remove-NetFirewallRule", "Name DisplayName", positional="Name")
async def _remove_net_firewall_rule(context: Context, values: dict[str, Any]) -> Any:
    if ("Name" in values) == ("DisplayName" in values):
        raise PsError("rehearsal: Remove-NetFirewallRule needs either -Name or -DisplayName here")
    rules = [
        rule
        for rule in context.host.firewall.rules
        if rule.id.lower() == text(values.get("Name", "")).lower()
        or rule.name.lower() == text(values.get("DisplayName", "")).lower()
    ]
    if not rules:
        which, wanted = ("InstanceID", values["Name"]) if "Name" in values else ("DisplayName", values["DisplayName"])
        raise PsError(
            f"No MSFT_NetFirewallRule objects found with property '{which}' equal to '{wanted}'. Verify the value of "
            "the property and retry."
        )
    context.host.firewall.remove(rules)
    await context.host.apply_firewall()


# -------------------------------------------------------------------------------------------------------------- others


@_cmdlet("New-Object", "TypeName ArgumentList", positional="TypeName ArgumentList", required="TypeName")
async def _new_object(context: Context, values: dict[str, Any]) -> Any:
    arguments = values.get("ArgumentList", [])
    arguments = arguments if isinstance(arguments, list) else [arguments]
    kind = text(values["TypeName"]).lower().removeprefix("system.")
    if kind == "management.automation.pscredential":
        return _credential(arguments)
    if kind != "io.ports.serialport":
        raise PsError(f"rehearsal: New-Object {values['TypeName']} is not modelled")
    return _serial_port(context.host, arguments)


def _credential(arguments: list[Any]) -> PsObject:
    secret = arguments[1] if len(arguments) == 2 else None
    if not isinstance(secret, PsObject) or secret.type_name != _SECURE_STRING:
        raise PsError('Cannot find an overload for "PSCredential": it takes a user name and a SecureString.')
    name, password = text(arguments[0]), secret.get("Text")
    return PsObject("System.Management.Automation.PSCredential", {"UserName": name, "Password": password})


@_cmdlet("ConvertTo-SecureString", "String", "AsPlainText Force", required="String AsPlainText Force")
async def _secure_string(context: Context, values: dict[str, Any]) -> Any:
    if not text(values["String"]):
        raise PsError("Cannot bind argument to parameter 'String' because it is an empty string.")
    return PsObject(_SECURE_STRING, {"Text": text(values["String"])})


# ---------------------------------------------------------------------------------------------- file sharing (SmbShare)


@_cmdlet("Get-SmbGlobalMapping", "LocalPath", required="LocalPath")
async def _get_mapping(context: Context, values: dict[str, Any]) -> Any:
    drive = text(values["LocalPath"]).upper()
    mapping = context.host.network_files.mappings.get(drive)
    if mapping is None:
        raise PsError(f"No MSFT_SmbGlobalMapping objects found with property 'LocalPath' equal to '{drive}'.")
    return _mapping(drive, mapping)


@_cmdlet("Remove-SmbGlobalMapping", "LocalPath", "Force", takes_pipeline=True)
async def _remove_mapping(context: Context, values: dict[str, Any]) -> Any:
    if not values.get("Force"):
        raise PsError("rehearsal: without -Force it asks, and there is nobody to answer")
    drives = [item.get("LocalPath") for item in context.flow]
    for drive in [*drives, *([text(values["LocalPath"]).upper()] if "LocalPath" in values else [])]:
        context.host.network_files.unmap(drive)


@_cmdlet(
    "New-SmbGlobalMapping",
    "LocalPath RemotePath Credential RequirePrivacy Persistent",
    required="RemotePath Credential",
)
async def _new_mapping(context: Context, values: dict[str, Any]) -> Any:
    credential = values["Credential"]
    if not isinstance(credential, PsObject) or "UserName" not in credential.properties:
        raise PsError("Cannot process argument transformation on parameter 'Credential'.")
    if "LocalPath" not in values:
        raise PsError("rehearsal: a global mapping without -LocalPath is not modelled")
    drive = text(values["LocalPath"]).upper()
    mapping = Mapping(text(values["RemotePath"]), credential.get("UserName"), credential.get("Password"))
    await context.host.network_files.map(drive, mapping, persistent=bool(values.get("Persistent", True)))
    return _mapping(drive, mapping)


def _mapping(drive: str, mapping: Mapping) -> PsObject:
    properties = {"Status": "OK", "LocalPath": drive, "RemotePath": mapping.unc}
    return PsObject("MSFT_SmbGlobalMapping", properties)


def _serial_port(host: WindowsHost, arguments: list[Any]) -> PsObject:
    if not arguments or text(arguments[0]).upper() != "COM1":
        raise PsError(f"The port '{text(arguments[0]) if arguments else ''}' does not exist.")
    state = {"open": False}

    def open_port() -> None:
        if state["open"]:
            raise PsError('Exception calling "Open" with "0" argument(s): "The port is already open."')
        state["open"] = True

    def write(value: Any, end: str = "") -> None:
        if not state["open"]:
            raise PsError('Exception calling "Write" with "1" argument(s): "The port is closed."')
        host.platform.serial((text(value) + end).encode("ascii", errors="replace"))

    return PsObject(
        "System.IO.Ports.SerialPort",
        {"PortName": "COM1", "NewLine": "\n"},
        {
            "Open": open_port,
            "Close": lambda: state.update(open=False),
            "Write": lambda value: write(value),
            "WriteLine": lambda value: write(value, "\n"),
        },
    )


@_cmdlet("Get-CimInstance", "ClassName Property Filter", required="ClassName")
async def _get_cim_instance(context: Context, values: dict[str, Any]) -> Any:
    if text(values["ClassName"]).lower() == "win32_process":
        return _processes(context.host, text(values.get("Filter", "")))
    if "Filter" in values:
        raise PsError(f"rehearsal: Get-CimInstance of {values['ClassName']} with -Filter is not modelled")
    if text(values["ClassName"]).lower() != "win32_operatingsystem":
        raise PsError(f"rehearsal: Get-CimInstance of {values['ClassName']} is not modelled")
    host = context.host
    file_time = int((host.boot_time + _FILE_TIME_EPOCH) * 10_000_000)
    boot = PsObject("System.DateTime", {}, {"ToFileTime": lambda: file_time})
    return PsObject("Win32_OperatingSystem", {"LastBootUpTime": boot, "CSName": host.computer_name})


_WQL_NAME = re.compile(r"Name\s*(=|like)\s*'([^']*)'", re.IGNORECASE)


def _processes(host: WindowsHost, wanted: str) -> list[PsObject]:
    """What runs, by a WQL condition of names with = and like, joined by or (WMI documentation, "Querying with WQL")."""
    tests = []
    for part in re.split(r"\s+or\s+", wanted, flags=re.IGNORECASE):
        match = _WQL_NAME.fullmatch(part.strip())
        if match is None or "_" in match[2] or "[" in match[2]:
            raise PsError(f"rehearsal: the filter {wanted!r} is not modelled: only Name = and Name like, joined by or")
        tests.append(match[2].lower().replace("%", "*") if match[1].lower() == "like" else match[2].lower())
    running: list[tuple[str, int, Any]] = [(each.image, each.number, each) for each in host.processes.all()]
    for service in map(host.services.get, host.services.names()):
        status = host.services.status(service.name)
        if status.state == "running":
            running.append((ntpath.basename(host.services.binary(service)), status.process_id, status))
    return [
        PsObject(
            "Win32_Process", {"Name": name, "ProcessId": number, "Priority": PRIORITIES[of.priority], "Process": of}
        )
        for name, number, of in running
        if any(fnmatch.fnmatchcase(name.lower(), test) for test in tests)
    ]


@_cmdlet("Invoke-CimMethod", "MethodName Arguments", required="MethodName Arguments", takes_pipeline=True)
async def _invoke_cim_method(context: Context, values: dict[str, Any]) -> Any:
    """``SetPriority`` of processes (Win32_Process; it returns 0 when it is done)."""
    arguments = values["Arguments"]
    if text(values["MethodName"]).lower() != "setpriority" or not isinstance(arguments, dict):
        raise PsError(f"rehearsal: the method {text(values['MethodName'])} is not modelled")
    priority = lookup(arguments, "Priority")
    if len(arguments) != 1 or priority not in PRIORITIES:
        raise PsError(f"rehearsal: SetPriority with {arguments} is not modelled; classes: {sorted(PRIORITIES)}")
    answers = []
    for item in context.flow:
        if not isinstance(item, PsObject) or item.type_name != "Win32_Process":
            raise PsError(f"rehearsal: SetPriority of {text(item)} is not modelled")
        item.get("Process").priority = priority
        answers.append(PsObject("CimMethodResult", {"ReturnValue": 0}))
    return answers


@_cmdlet("Write-Output", "InputObject", positional="InputObject", required="InputObject")
async def _write_output(context: Context, values: dict[str, Any]) -> Any:
    return values["InputObject"]


@_cmdlet("Write-Host", "Object", positional="Object", required="Object")
async def _write_host(context: Context, values: dict[str, Any]) -> Any:
    return text(values["Object"])
