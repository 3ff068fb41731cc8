<#
.SYNOPSIS
    Lets the controller configure this workstation: WinRM over HTTPS, for the studio's own network only.

.DESCRIPTION
    Run once as administrator on the workstation that shall run the studio's end of the tunnel:

        powershell -ExecutionPolicy Bypass -File prepare-workstation.ps1 -Address 192.168.1.10 -Lan 192.168.1.0/24

    It makes a certificate for the address, an HTTPS listener with it and a firewall rule for the network, and writes the
    certificate's public part to winrm.pem. Copy that file to .farm/hosts/studio-workstation/winrm.pem on the controller,
    which will trust exactly this certificate. Running it again makes a new certificate: copy the new file.

    The controller logs on with a local account, which must be one of this computer's administrators. Windows takes their
    rights from such accounts when they come over the network (Microsoft KB 951016); the script sets the documented value
    LocalAccountTokenFilterPolicy, without which nothing could be configured from outside.

    To undo: Remove-ItemProperty -Path HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Policies\System `
    -Name LocalAccountTokenFilterPolicy; Remove-NetFirewallRule -Name renderfarm-winrm-https; winrm delete winrm/config/Listener?Address=*+Transport=HTTPS

.PARAMETER Address
    IPv4 address of this workstation in the studio's network (inventory/lan.yml names the same).

.PARAMETER Lan
    The studio's network (farm_lan_network).
#>
#Requires -RunAsAdministrator
#Requires -Version 5.1
param(
    [Parameter(Mandatory = $true)][ipaddress]$Address,
    [Parameter(Mandatory = $true)][ValidatePattern('^\d{1,3}(\.\d{1,3}){3}/\d{1,2}$')][string]$Lan
)
$ErrorActionPreference = 'Stop'

$own = Get-NetIPAddress -AddressFamily IPv4 | Where-Object -Property IPAddress -EQ -Value "$Address"
if (-not $own) {
    throw "This computer has no address $Address (see ipconfig). Name its own, for example -Address 192.168.1.10"
}

Set-Service -Name WinRM -StartupType Automatic
Start-Service -Name WinRM

$certificate = New-SelfSignedCertificate -Subject "CN=$Address" -CertStoreLocation Cert:\LocalMachine\My `
    -KeyAlgorithm RSA -KeyLength 2048 -NotAfter (Get-Date).AddYears(5) `
    -TextExtension @("2.5.29.17={text}IPAddress=$Address", '2.5.29.37={text}1.3.6.1.5.5.7.3.1')

Get-ChildItem -Path WSMan:\localhost\Listener | Where-Object { $_.Keys -contains 'Transport=HTTPS' } |
    Remove-Item -Recurse -Force
New-WSManInstance -ResourceURI winrm/config/Listener -SelectorSet @{ Address = '*'; Transport = 'HTTPS' } `
    -ValueSet @{ CertificateThumbprint = $certificate.Thumbprint } | Out-Null

Remove-NetFirewallRule -Name 'renderfarm-winrm-https' -ErrorAction SilentlyContinue
New-NetFirewallRule -Name 'renderfarm-winrm-https' -DisplayName 'Render farm: WinRM over HTTPS' -Direction Inbound `
    -Protocol TCP -LocalPort 5986 -RemoteAddress $Lan -Action Allow -Profile Any | Out-Null

Set-ItemProperty -Path HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Policies\System `
    -Name LocalAccountTokenFilterPolicy -Type DWord -Value 1

$pem = @(
    '-----BEGIN CERTIFICATE-----'
    [Convert]::ToBase64String($certificate.RawData, 'InsertLineBreaks')
    '-----END CERTIFICATE-----'
)
$file = Join-Path -Path (Get-Location) -ChildPath 'winrm.pem'
Set-Content -Path $file -Value $pem -Encoding Ascii

Write-Output "Done. Copy $file to the controller, as .farm/hosts/studio-workstation/winrm.pem"
