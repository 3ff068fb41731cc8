"""win_ping, setup, win_command, async_status."""

from __future__ import annotations

import json
import ntpath
from datetime import UTC, datetime, timedelta

from rehearsal.windows import commandline
from rehearsal.windows.errors import WindowsError
from rehearsal.windows.modules.base import Call

_VERSIONS = {"server": ("10.0.20348.0", "Microsoft Windows Server 2022 Datacenter", "server"),
             "workstation": ("10.0.26100.0", "Microsoft Windows 11 Pro", "workstation")}  # fmt: skip


def win_ping(call: Call) -> None:
    """Answer ``pong``, or what ``data`` says."""
    if call.get("data") == "crash":
        raise call.fail("Unhandled exception while executing module: boom")
    call.result["ping"] = call.get("data")


def setup(call: Call) -> None:
    """Facts of the host. Hardware facts are those of one fixed machine type."""
    if call.get("fact_path"):
        raise call.fail("rehearsal: fact_path is not modelled")
    host = call.host
    version, caption, kind = _VERSIONS[host.edition]
    nic = host.platform.nic
    now = datetime.fromtimestamp(host.clock(), UTC)
    user = host.accounts.user(call.user)
    call.result["ansible_facts"] = {
        "ansible_architecture": "64-bit",
        "ansible_architecture2": "x86_64",
        "ansible_date_time": {
            "date": now.strftime("%Y-%m-%d"),
            "time": now.strftime("%H:%M:%S"),
            "epoch": f"{now.timestamp():.0f}",
            "epoch_int": int(now.timestamp()),
            "iso8601": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "tz": "UTC",
            "tz_offset": "+00:00",
        },
        "ansible_distribution": caption,
        "ansible_distribution_major_version": "10",
        "ansible_distribution_version": version,
        "ansible_domain": "",
        "ansible_env": host.environment(call.user),
        "ansible_fqdn": host.computer_name,
        "ansible_hostname": host.computer_name,
        "ansible_interfaces": [
            {
                "connection_name": "Ethernet",
                "default_gateway": str(nic.gateway) if nic.gateway else None,
                "dns_domain": None,
                "interface_name": "Amazon Elastic Network Adapter",
                "macaddress": nic.mac.upper(),
                "ipv4": {"address": str(nic.address), "prefix": str(nic.network.prefixlen)},
            }
        ],
        "ansible_ip_addresses": [str(nic.address)],
        "ansible_kernel": version,
        "ansible_lastboot": datetime.fromtimestamp(host.boot_time, UTC).strftime("%Y-%m-%d %H:%M:%SZ"),
        "ansible_machine_id": host.accounts.machine_sid,
        "ansible_memtotal_mb": 8192,
        "ansible_netbios_name": host.computer_name,
        "ansible_nodename": host.computer_name,
        "ansible_os_family": "Windows",
        "ansible_os_name": caption,
        "ansible_os_product_type": kind,
        "ansible_powershell_version": 5,
        "ansible_processor_vcpus": 4,
        "ansible_reboot_pending": False,
        "ansible_system": "Win32NT",
        "ansible_uptime_seconds": int(host.clock() - host.boot_time),
        "ansible_user_dir": host.environment(call.user)["USERPROFILE"],
        "ansible_user_id": call.user,
        "ansible_user_sid": "S-1-5-18" if user is None else host.accounts.sid_of_user(user),
        "ansible_virtualization_role": "guest",
        "ansible_windows_domain": "WORKGROUP",
        "ansible_windows_domain_member": False,
    }


async def win_command(call: Call) -> None:
    """Run a program without a shell."""
    host = call.host
    if call.get("output_encoding_override"):
        raise call.fail("rehearsal: output_encoding_override is not modelled")
    folder = call.path("chdir") or host.home(call.user)
    environment = {**host.environment(call.user), **call.environment}
    missing: WindowsError | None = None
    if call.get("argv"):
        words = [str(word) for word in call.get("argv")]
        try:
            words[0] = host.find_program(words[0], folder, environment)
        except WindowsError as error:
            missing = error
        line = commandline.join(words)
    else:
        line = call.text("cmd") or call.text("_raw_params").strip()
        words = commandline.split(line)
    call.result.update(cmd=line, rc=0)
    for option, wanted, text in (("creates", True, "exists"), ("removes", False, "does not exist")):
        if call.get(option) and host.files.exists(call.path(option)) == wanted:
            call.result.update(msg=f"skipped, since {call.path(option)} {text}", skipped=True)
            return
    if not host.files.is_directory(folder):
        message = f"Failed to run: '{line}': Could not find specified -WorkingDirectory '{folder}'"
        raise call.fail(message, rc=2)
    start = datetime.fromtimestamp(host.clock(), UTC)
    try:
        if missing is not None:
            raise missing
        outcome = await host.run(
            words, cwd=folder, stdin=call.text("stdin").encode(), environment=call.environment, user=call.user
        )
    except WindowsError as error:
        reason = f"{str(error).rstrip('.')}, Win32ErrorCode {error.code} - 0x{error.code:08X}"
        message = (
            f'Failed to run: \'{line}\': Exception calling "CreateProcess" with "7" argument(s): '
            f'"CreateProcessW() failed ({reason})"'
        )
        raise call.fail(message, rc=error.code) from error
    end = datetime.fromtimestamp(host.clock(), UTC)
    call.changed()
    call.result.update(
        stdout=outcome.stdout.decode("utf-8", errors="replace"),
        stderr=outcome.stderr.decode("utf-8", errors="replace"),
        rc=outcome.rc,
        start=start.strftime("%Y-%m-%d %H:%M:%S.%f"),
        end=end.strftime("%Y-%m-%d %H:%M:%S.%f"),
        delta=_delta(end - start),
    )
    if outcome.rc:
        raise call.fail("non-zero return code")


def _delta(duration: timedelta) -> str:
    whole = int(duration.total_seconds())
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}.{duration.microseconds:06}"


def async_status(call: Call) -> None:
    """What became of an asynchronous module: its result file tells."""
    host = call.host
    job = call.text("jid")
    folder = call.path("_async_dir")
    path = ntpath.join(folder, job)
    if not host.files.exists(path):
        raise call.fail(f"could not find job at '{folder}'", ansible_job_id=job, started=1, finished=1)
    if call.get("mode") == "cleanup":
        host.files.delete(path)
        call.result.update(ansible_job_id=job, erased=path)
        return
    try:
        call.result.update(json.loads(host.files.read_bytes(path)))
    except ValueError:
        message = "Could not parse job output: "
        raise call.fail(message, ansible_job_id=job, results_file=path, started=1, finished=1) from None
