# Opens WinRM over HTTPS with a certificate that this machine makes for itself, and prints the certificate to the EC2
# console, where GetConsoleOutput shows it to whoever may see this account: the controller trusts it and no other.
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
