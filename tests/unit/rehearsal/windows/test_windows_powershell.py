"""PowerShell: the bootstrap script from end to end, the statement forms, refusal of everything else; EC2Launch."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from windows_bench import Answer, Bench, FakePlatform, metadata

from rehearsal.windows import certificates, ec2launch, powershell
from rehearsal.windows.powershell import syntax

Run = Callable[[Any], Any]

BOOTSTRAP = r"""
$ErrorActionPreference = 'Stop'
$imds = 'http://169.254.169.254/latest'
$token = Invoke-RestMethod -Method Put -Uri "$imds/api/token" -Headers @{ 'X-aws-ec2-metadata-token-ttl-seconds' = '300' }
$headers = @{ 'X-aws-ec2-metadata-token' = $token }
$private = Invoke-RestMethod -Uri "$imds/meta-data/local-ipv4" -Headers $headers
$public = Invoke-RestMethod -Uri "$imds/meta-data/public-ipv4" -Headers $headers
$names = "2.5.29.17={text}IPAddress=$private&IPAddress=$public"
$certificate = New-SelfSignedCertificate -Subject "CN=$private" -TextExtension @($names, '2.5.29.37={text}1.3.6.1.5.5.7.3.1') -CertStoreLocation Cert:\LocalMachine\My -KeyAlgorithm RSA -KeyLength 2048
Set-Service -Name WinRM -StartupType Automatic
Start-Service -Name WinRM
Get-ChildItem -Path WSMan:\localhost\Listener | Where-Object { $_.Keys -contains 'Transport=HTTPS' } | Remove-Item -Recurse -Force
New-WSManInstance -ResourceURI winrm/config/Listener -SelectorSet @{ Address = '*'; Transport = 'HTTPS' } -ValueSet @{ CertificateThumbprint = $certificate.Thumbprint }
Remove-NetFirewallRule -Name 'renderfarm-winrm-https' -ErrorAction SilentlyContinue
New-NetFirewallRule -Name 'renderfarm-winrm-https' -DisplayName 'Render farm: WinRM over HTTPS' -Direction Inbound -Protocol TCP -LocalPort 5986 -Action Allow -Profile Any
$pem = [Convert]::ToBase64String($certificate.RawData)
$port = New-Object -TypeName System.IO.Ports.SerialPort -ArgumentList 'COM1', 115200
$port.Open()
$port.WriteLine("RENDERFARM-CERTIFICATE $pem")
$port.Close()
"""  # noqa: E501 - as it is sent


async def script(bench: Bench, text: str) -> tuple[int, str, str]:
    outcome = await powershell.run(bench.host, text, "SYSTEM")
    return outcome.rc, outcome.stdout.decode(), outcome.stderr.decode()


def printed_certificate(platform: FakePlatform) -> x509.Certificate:
    lines = [line for line in platform.console.decode().splitlines() if line.startswith("RENDERFARM-CERTIFICATE ")]
    return x509.load_der_x509_certificate(base64.b64decode(lines[-1].split(" ")[1]))


def test_the_bootstrap_script(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        platform = bench.platform
        metadata(platform)
        bench.host.services.get("WinRM").start = "disabled"
        await bench.host.services.stop("WinRM")
        rc, _, err = await script(bench, BOOTSTRAP)
        assert (rc, err) == (0, "")
        certificate = printed_certificate(platform)
        extensions = certificate.extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.21", "198.18.20.7"]
        usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usages) == [ExtendedKeyUsageOID.SERVER_AUTH]
        usage = extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical and usage.value.digital_signature and usage.value.key_encipherment
        assert not usage.value.key_cert_sign
        with pytest.raises(x509.ExtensionNotFound):
            extensions.get_extension_for_class(x509.BasicConstraints)
        assert certificate.subject.rfc4514_string() == "CN=10.0.0.21"
        assert sorted(platform.ports) == [445, 5985, 5986] and platform.ports[5986][1] is not None
        assert "    tcp dport { 5986 } accept\n" in platform.rulesets[-1]
        assert bench.host.services.get("WinRM").start == "auto"
        sent = [headers for _, path, headers in platform.requests if "meta-data" in path]
        assert all(headers["X-aws-ec2-metadata-token"] == "token" for headers in sent)
        rc, _, err = await script(bench, BOOTSTRAP)
        assert (rc, err) == (0, ""), "it can run again"
        assert printed_certificate(platform) != certificate
        assert len(bench.host.winrm_settings["listeners"]) == 2
        assert len(bench.host.firewall.named("Render farm: WinRM over HTTPS")) == 1

    run(scenario)


@pytest.mark.parametrize(
    "statement",
    [
        "if ($true) { 'x' }",
        "foreach ($i in 1..3) { $i }",
        "function f { 1 }",
        "try { 1 } catch { 2 }",
        "$x = 1 + 2",
        "$x.y = 1",
        "$x += 1",
        "& 'C:\\x.ps1'",
        ". C:\\x.ps1",
        "[int]'5'",
        "$a[0]",
        '"unfinished',
        "exit 3010",
        "Get-Date > file",
        "hostname; if (1) { 2 }",
        "$x = @{ a = 1",
        "@splat",
    ],
)
def test_statements_that_are_not_modelled_stop_before_anything_runs(run: Run, statement: str) -> None:
    async def scenario(bench: Bench) -> None:
        first = "New-NetFirewallRule -Name 'x' -DisplayName 'x' -Protocol TCP -LocalPort 1\n"
        rc, out, err = await script(bench, first + statement)
        assert rc == 1 and "rehearsal: the PowerShell statement is not modelled: " in err, err
        assert not bench.host.firewall.named("x") and not out

    run(scenario)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("Install-WindowsFeature -Name Web", "is not recognized as the name of a cmdlet"),
        ("Start-Service -Nam WinRM", "A parameter cannot be found that matches parameter name 'Nam'."),
        ("Start-Service WinRM Spooler", "A positional parameter cannot be found that accepts argument 'Spooler'."),
        ("Start-Service -Name", "Missing an argument for parameter 'Name'."),
        ("Start-Service -Name a -Name b", "is specified more than once"),
        ("Start-Service", "missing mandatory parameters: Name."),
        ("Start-Service none", "Cannot find any service with service name 'none'."),
        ("Start-Service RemoteAccess", "cannot be started due to the following error"),
        ("Set-Service WinRM -StartupType Sometimes", 'The argument "Sometimes" does not belong to the set'),
        ("Start-Service WinRM -ErrorAction Never", "does not belong to the set"),
        ("Write-Output $nothing", "the variable $nothing is not set"),
        ("Invoke-RestMethod http://169.254.169.254/none", "The remote server returned an error: (404) Not Found."),
        ("Invoke-RestMethod http://10.9.9.9/", "Unable to connect to the remote server"),
        ("Invoke-RestMethod -Uri x -Headers y", "Cannot bind parameter 'Headers'"),
        ("Get-ChildItem C:\\Windows", "rehearsal: Get-ChildItem of 'C:\\\\Windows' is not modelled"),
        ("New-SelfSignedCertificate -Subject 'CN=x' -KeyUsage Everything", "Unable to match the identifier name"),
        ("New-SelfSignedCertificate -Subject 'CN=x' -TextExtension @('1.2.3={hex}00')", "is not modelled"),
        ("New-SelfSignedCertificate -Subject 'CN=x' -TextExtension @('2.5.29.17={text}URL=x')", "is not modelled"),
        ("New-SelfSignedCertificate", "without a subject"),
        ("New-SelfSignedCertificate -Subject 'CN=x' -CertStoreLocation Cert:\\CurrentUser\\My", "is not modelled"),
        ("New-WSManInstance winrm/config -SelectorSet @{}", "A positional parameter cannot be found"),
        ("New-WSManInstance -ResourceURI winrm/config/Service -SelectorSet @{ a = 1 }", "is not modelled"),
        (
            "New-WSManInstance -ResourceURI winrm/config/Listener -SelectorSet @{ Address = '*'; Transport = 'HTTP' }",
            "already exists",
        ),
        (
            "New-WSManInstance -ResourceURI winrm/config/Listener -SelectorSet @{ Address = '*'; Transport = 'HTTPS' }"
            " -ValueSet @{ CertificateThumbprint = 'AB' }",
            "Cannot find the certificate that was requested.",
        ),
        ("Remove-NetFirewallRule -Name none", "No MSFT_NetFirewallRule objects found with property 'InstanceID'"),
        ("New-NetFirewallRule -Name a -Protocol TCP", "missing mandatory parameters: DisplayName."),
        ("New-NetFirewallRule -DisplayName a -LocalPort 80", "Value does not fall within the expected range."),
        ("New-NetFirewallRule -Name WINRM-HTTP-In-TCP -DisplayName a", "when that file already exists"),
        ("New-NetFirewallRule -DisplayName a -Protocol XYZ", "The protocol is invalid."),
        ("New-Object System.Net.WebClient", "New-Object System.Net.WebClient is not modelled"),
        ("New-Object -TypeName System.IO.Ports.SerialPort -ArgumentList COM2", "The port 'COM2' does not exist."),
        ("$p = New-Object System.IO.Ports.SerialPort 'COM1'\n$p.WriteLine('x')", "The port is closed."),
        ("$p = New-Object System.IO.Ports.SerialPort 'COM1'\n$p.Flush()", "does not contain a method named 'Flush'"),
        ("$p = New-Object System.IO.Ports.SerialPort 'COM1'\n$p.Open(1)", 'overload for "Open"'),
        ("$s = Get-Service WinRM\n$s.Statuz", "has no property Statuz"),
        ("[Convert]::ToBase64String('x')", 'Cannot convert argument "inArray"'),
        ("[Console]::Beep()", "[Console]::Beep is not modelled"),
        ("Remove-Item C:\\none", "Cannot find path 'C:\\none' because it does not exist."),
        ("Remove-Item C:\\Windows", "The item at C:\\Windows has children and the Recurse parameter"),
        ("Get-CimInstance -ClassName Win32_Bios", "is not modelled"),
        ("$ErrorActionPreference = 'Inquire'", "is not modelled"),
    ],
)
def test_errors_name_their_statement(run: Run, statement: str, message: str) -> None:
    async def scenario(bench: Bench) -> None:
        metadata(bench.platform)
        rc, _, err = await script(bench, "$ErrorActionPreference = 'Stop'\n" + statement)
        assert rc == 1 and message in err, err
        assert statement.splitlines()[-1] in err or "cannot be found" in err or "not modelled" in err

    run(scenario)


def test_errors_end_a_script_only_when_they_should(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        rc, out, err = await script(bench, "Start-Service none\nWrite-Output 'after'")
        assert (rc, out) == (0, "after\r\n") and "Cannot find any service" in err
        rc, out, err = await script(bench, "Start-Service none -ErrorAction Stop\nWrite-Output 'after'")
        assert rc == 1 and not out
        rc, out, err = await script(bench, "Write-Output 'before'\nStart-Service none -ErrorAction SilentlyContinue")
        assert (rc, out, err) == (1, "before\r\n", "")
        rc, _, _ = await script(bench, "sc.exe query none")
        assert rc == 1060

    run(scenario)


def test_expressions(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        _, out, err = await script(
            bench,
            """
            # a comment
            $a = 'it''s' ; $t = @{ One = 1; 'two' = @('x', "y$a") }
            "$($t.One) ${a} `$a ""q"" $env:SystemRoot" <# inner #>
            $t.two
            $t.Two.Count
            @('a', 'b') | Where-Object { $_ -eq 'B' -or -not ($_ -like 'a*') }
            @('5985', '5986') | Where-Object { $_ -match '86$' -and $_ -ne '5985' }
            Get-Service `
                -Name WinRM | Where-Object { $_.Status -eq 'Running' }
            (Get-Service WinRM).StartType
            $null
            """,
        )
        assert err == ""
        assert out.splitlines() == [
            '1 it\'s $a "q" C:\\Windows',
            "x",
            "yit's",
            "2",
            "b",
            "5986",
            "System.ServiceProcess.ServiceController",
            "Automatic",
        ]

    run(scenario)


def test_a_syntax_error_quotes_the_statement() -> None:
    with pytest.raises(syntax.SyntaxUnknown, match=r"^if \(1\) \{ 2 \}$"):
        syntax.parse("Write-Output 1\nif (1) { 2 }\n")


def test_basic_authentication_can_be_switched(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        rc, _, err = await script(bench, "Set-Item -Path WSMan:\\localhost\\Service\\Auth\\Basic -Value $true -Force")
        assert (rc, err) == (0, "") and bench.host.winrm_basic_allowed()
        await bench.host.services.stop("WinRM")
        _, _, err = await script(bench, "Get-ChildItem WSMan:\\localhost\\Listener")
        assert "Verify that the service on the destination is running" in err

    run(scenario)


def test_certificates_of_other_kinds() -> None:
    request = certificates.Request(
        dns_names=("manager", "mgr"),
        text_extensions=("2.5.29.19={critical}{text}CA=1&pathlength=0", "2.5.29.17={text}DNS=other"),
        key_usage=("CertSign", "CRLSign"),
    )
    certificate, _ = certificates.self_signed(request)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical and constraints.value.ca and constraints.value.path_length == 0
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign and usage.crl_sign and not usage.digital_signature
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["manager", "mgr", "other"]
    assert certificate.subject.rfc4514_string() == "CN=manager"


# ----------------------------------------------------------------------------------------------------------- EC2Launch


async def boot(bench: Bench) -> None:
    """Boot and wait until EC2Launch is done."""
    await bench.host.power_on()
    for _ in range(200):
        await asyncio.sleep(0.01)
        if not bench.host._background:
            return
    raise AssertionError("EC2Launch does not end")


def log_of(bench: Bench) -> str:
    return bench.host.files.read_bytes(ec2launch.LOG).decode()


def test_the_first_boot_sets_a_password_and_runs_user_data_once(bench: Bench) -> None:
    async def scenario() -> None:
        platform = bench.platform
        metadata(platform, b"<powershell>\nWrite-Output 'x'\nhostname\n</powershell>\n<farm>{}</farm>")
        await boot(bench)
        assert len(platform.passwords) == 1 and len(platform.passwords[0]) == 32
        assert bench.host.winrm_users() == {"Administrator": platform.passwords[0]}
        assert platform.console.decode().endswith("Windows is Ready to use\r\n")
        assert "user data script completed" in log_of(bench) and bench.host.files.exists(ec2launch.RUN_ONCE)
        await bench.host.power_off()
        second = bench.again()
        await boot(second)
        assert len(platform.passwords) == 1 and platform.console.count(b"Ready to use") == 2
        assert "has no <persist>true</persist>: not run" in log_of(second)
        rc, _, _ = await second.program("C:\\Program Files\\Amazon\\EC2Launch\\EC2Launch.exe", "reset", "--clean")
        assert rc == 0 and not second.host.files.exists(ec2launch.LOG)
        assert (await second.program("C:\\Program Files\\Amazon\\EC2Launch\\EC2Launch.exe", "sysprep", "--shutdown"))[
            0
        ] == 1
        await second.host.power_off()
        clone = second.again(FakePlatform("clone", "10.0.0.30"))
        metadata(clone.platform, b"<powershell>hostname</powershell>")
        name = clone.host.computer_name
        await boot(clone)
        assert clone.platform.passwords and "user data script completed" in log_of(clone)
        assert clone.host.computer_name == name, "a plain clone keeps its name"
        identifier = clone.host.accounts.machine_sid
        await clone.program("C:\\Program Files\\Amazon\\EC2Launch\\EC2Launch.exe", "sysprep", "--clean")
        await clone.host.power_off()
        other = clone.again(FakePlatform("other", "10.0.0.31"))
        await boot(other)
        assert other.host.accounts.machine_sid != identifier, "Sysprep takes the identity of the disk"
        await other.host.power_off()

    asyncio.run(scenario())


def test_persistent_user_data_runs_at_each_boot(bench: Bench) -> None:
    async def scenario() -> None:
        text = b"<powershell>hostname</powershell><persist>true</persist>"
        metadata(bench.platform, text)
        await boot(bench)
        await bench.host.power_off()
        second = bench.again()
        await boot(second)
        assert log_of(second).count("user data script completed") == 2
        await second.host.power_off()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("user_data", "expected"),
    [
        (None, "there is no user data"),
        (b"<farm>{}</farm>", "user data has no <powershell>"),
        (b"<POWERSHELL>hostname</POWERSHELL>", "user data has no <powershell>"),
        (b"<script>dir</script>", "rehearsal: user data in YAML and <script> are not modelled"),
        (b"version: 1.1\ntasks: []", "rehearsal: user data in YAML and <script> are not modelled"),
        (b"<powershell>Install-Everything</powershell>", "user data script failed with exit code 1: "),
        (b"<powershell>if (1) { 2 }</powershell>", "the PowerShell statement is not modelled: if (1) { 2 }"),
    ],
)
def test_what_user_data_may_be(bench: Bench, user_data: bytes | None, expected: str) -> None:
    async def scenario() -> None:
        metadata(bench.platform, user_data)
        bench.platform.key_name = None
        await boot(bench)
        assert expected in log_of(bench) and not bench.platform.passwords
        if "fail" in expected or "rehearsal" in expected:
            assert expected in bench.platform.console.decode()
        await bench.host.power_off()

    asyncio.run(scenario())


def test_no_metadata_is_said_on_the_console(bench: Bench) -> None:
    async def scenario() -> None:
        await boot(bench)
        assert b"user data could not be read: Unable to connect to the remote server" in bench.platform.console
        await bench.host.power_off()

    asyncio.run(scenario())


def test_metadata_needs_the_token(bench: Bench) -> None:
    async def scenario() -> None:
        bench.platform.web[("169.254.169.254:80", "/latest/user-data")] = Answer(b"x")
        await boot(bench)
        assert b"user data could not be read: The remote server returned an error: (404)" in bench.platform.console
        await bench.host.power_off()

    asyncio.run(scenario())
