"""The role vpn_pki on this machine, judged by the real ``openssl``: make, do nothing, renew, revoke, keep secrets.

The tests build on each other and run in their order; they share one folder of keys. No root, no network.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ANSIBLE = Path(sys.executable).parent / "ansible-playbook"
PASSPHRASE = "a passphrase of the test"

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


@dataclass(frozen=True)
class Result:
    rc: int
    output: str

    @property
    def changed(self) -> int:
        return int(re.findall(r"changed=(\d+)", self.output)[-1])


@dataclass(frozen=True)
class Bench:
    folder: Path

    @property
    def pki(self) -> Path:
        return self.folder / "pki"

    def run(self, entry: str = "main", *arguments: str, **variables: Any) -> Result:
        play = self.folder / f"{entry}.yml"
        play.write_text(
            json.dumps(
                [
                    {
                        "hosts": "localhost",
                        "gather_facts": False,
                        "tasks": [
                            {"ansible.builtin.import_role": {"name": "renderfarm.cloud.vpn_pki", "tasks_from": entry}}
                        ],
                    }
                ]
            )
        )
        settings = self.folder / "settings.json"
        settings.write_text(
            json.dumps(
                {
                    "farm_state_dir": str(self.folder),
                    "farm_name": "studio",
                    "farm_vpn_server_side": "studio",
                    "vault_ca_passphrase": PASSPHRASE,
                }
                | variables
            )
        )
        done = subprocess.run(
            [str(ANSIBLE), "-i", "localhost,", "-c", "local", "-e", f"@{settings}", *arguments, str(play)],
            cwd=ROOT,
            env=os.environ | {"ANSIBLE_PYTHON_INTERPRETER": sys.executable, "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Result(done.returncode, done.stdout + done.stderr)

    def verify(self, certificate: Path, usage: str, *, revocations: bool = True) -> str:
        """What ``openssl verify`` says: ``OK`` or its reason."""
        check = ["-crl_check", "-CRLfile", str(self.pki / "crl.pem")] if revocations else []
        done = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-CAfile", str(self.pki / "ca.crt"), *check]  # noqa: RUF005
            + ["-purpose", f"ssl{usage}", str(certificate)],
            capture_output=True,
            text=True,
            timeout=10,
        )
        return "OK" if done.returncode == 0 else done.stderr

    def serial(self, name: str) -> str:
        return openssl("x509", "-in", str(self.pki / f"{name}.crt"), "-noout", "-serial").removeprefix("serial=")

    def files(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.pki)): path.read_bytes() for path in self.pki.rglob("*") if path.is_file()}


def openssl(*arguments: str) -> str:
    return subprocess.run(
        ["openssl", *arguments], check=True, capture_output=True, text=True, timeout=10
    ).stdout.strip()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("state"))


def test_check_mode_says_what_would_be_made_and_makes_nothing(bench: Bench) -> None:
    result = bench.run("main", "--check")
    assert result.rc == 0, result.output
    assert result.changed == 1
    assert "studio-workstation" in result.output
    assert not bench.pki.exists()


def test_first_run_makes_what_openssl_accepts_and_shows_no_secret(bench: Bench) -> None:
    result = bench.run("main", "-vvv", "--diff", vpn_pki_authority_days=828)
    assert result.rc == 0, result.output
    assert bench.verify(bench.pki / "studio-workstation.crt", "server") == "OK"
    assert bench.verify(bench.pki / "aws-gateway.crt", "client") == "OK"
    assert "unsuitable certificate purpose" in bench.verify(bench.pki / "aws-gateway.crt", "server")
    assert_no_secret(bench, result.output)


def test_secrets_are_readable_for_their_owner_only(bench: Bench) -> None:
    assert stat.S_IMODE(bench.pki.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in bench.pki.glob("*.key")}
    assert modes == dict.fromkeys(
        [
            "ca.key",
            "studio-workstation.key",
            "aws-gateway.key",
            "aws-gateway.tls-crypt-v2.key",
            "tls-crypt-v2-server.key",
        ],
        0o600,
    )
    with pytest.raises(subprocess.CalledProcessError):
        openssl("pkey", "-in", str(bench.pki / "ca.key"), "-passin", "pass:wrong", "-noout")


def test_second_run_changes_nothing_and_runs_no_module_but_one(bench: Bench) -> None:
    before = bench.files()
    result = bench.run("main", "-v")
    assert (result.rc, result.changed) == (0, 0), result.output
    assert "Make the" not in result.output
    assert bench.files() == before


def test_what_expires_soon_is_renewed_with_a_new_key_and_the_old_one_is_kept(bench: Bench) -> None:
    """The authority is due as well. It keeps its key, so that what it has signed stays valid.

    One of the renewals was interrupted before: of the files of a certificate, the certificate is moved last.
    """
    (bench.pki / "ca.key").chmod(0o644)
    (bench.pki / "studio-workstation.key").unlink()
    serial, authority, before = bench.serial("aws-gateway"), bench.serial("ca"), bench.files()
    longer = {"vpn_pki_certificate_days": 900, "vpn_pki_renew_days": 830, "vpn_pki_authority_days": 1000}
    result = bench.run("main", "-vvv", "--diff", **longer)
    assert result.rc == 0, result.output
    assert "it expires on" in result.output
    assert_no_secret(bench, result.output)
    after = bench.files()
    for name in ("aws-gateway.crt", "aws-gateway.key", "aws-gateway.tls-crypt-v2.key"):
        assert after[f"archive/aws-gateway-{serial}/{name}"] == before[name]
        assert after[name] != before[name]
    assert bench.serial("ca") != authority
    assert after["ca.key"] == before["ca.key"]
    for certificate in (bench.pki, bench.pki / f"archive/aws-gateway-{serial}"):
        assert bench.verify(certificate / "aws-gateway.crt", "client") == "OK"
    assert stat.S_IMODE((bench.pki / "ca.key").stat().st_mode) == 0o600
    assert bench.verify(bench.pki / "studio-workstation.crt", "server") == "OK"
    assert (bench.pki / "studio-workstation.key").exists()


def test_revoking_someone_unknown_is_refused(bench: Bench) -> None:
    before = bench.files()
    result = bench.run("revoke", vpn_pki_revoke=["aws-gatway"])
    assert result.rc != 0
    assert "There is no certificate aws-gatway" in " ".join(result.output.split())
    assert bench.files() == before


def test_revoked_certificates_are_refused_also_the_one_before(bench: Bench) -> None:
    result = bench.run("revoke", "-vvv", "--diff", vpn_pki_revoke=["aws-gateway"])
    assert result.rc == 0, result.output
    assert_no_secret(bench, result.output)
    old = next(bench.pki.glob("archive/aws-gateway-*/aws-gateway.crt"))
    for certificate in (bench.pki / "aws-gateway.crt", old):
        assert "certificate revoked" in bench.verify(certificate, "client")
    assert bench.verify(bench.pki / "studio-workstation.crt", "server") == "OK"
    assert bench.run("revoke", vpn_pki_revoke=["aws-gateway"]).changed == 0


def test_revoked_machine_comes_back_only_by_name_and_a_lost_list_is_made_anew(bench: Bench) -> None:
    result = bench.run()
    assert result.rc != 0
    assert "vpn-renew.yml -e vpn_renew_name=aws-gateway" in " ".join(result.output.split())
    (bench.pki / "crl.pem").unlink()
    assert bench.run(vpn_pki_renew=["aws-gateway"]).rc == 0
    assert bench.verify(bench.pki / "aws-gateway.crt", "client") == "OK"
    revoked = sorted(bench.pki.glob("revoked/aws-gateway-*.crt"))
    assert len(revoked) == 2
    for certificate in revoked:
        assert "certificate revoked" in bench.verify(certificate, "client")


def test_lost_key_of_the_authority_is_not_replaced_silently(bench: Bench) -> None:
    before = bench.files()
    (bench.pki / "ca.key").rename(bench.folder / "ca.key")
    result = bench.run()
    (bench.folder / "ca.key").rename(bench.pki / "ca.key")
    assert result.rc != 0
    assert "Restore it from your backup" in " ".join(result.output.split())
    assert bench.files() == before


def test_days_that_would_renew_at_every_run_are_refused(bench: Bench) -> None:
    result = bench.run(vpn_pki_certificate_days=60)
    assert result.rc != 0
    assert "less than vpn_pki_certificate_days" in " ".join(result.output.split())


def test_other_side_takes_other_certificates_and_leaves_these(bench: Bench) -> None:
    before = bench.files()
    result = bench.run(farm_vpn_server_side="cloud", vpn_pki_remote_names=["remote-1"])
    assert result.rc == 0, result.output
    assert bench.verify(bench.pki / "aws-gateway-server.crt", "server") == "OK"
    for name in ("studio-workstation-client", "remote-1"):
        assert bench.verify(bench.pki / f"{name}.crt", "client") == "OK"
        assert (bench.pki / f"{name}.tls-crypt-v2.key").exists()
    assert {name: data for name, data in bench.files().items() if name in before} == before


def secret_lines(pki: Path) -> list[str]:
    """The lines of all keys. The end of an EC key is its public key, which the certificate shows as well."""
    found = []
    for path in pki.rglob("*.key"):
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith("-----")]
        found += lines[:-1] if "PRIVATE KEY" in path.read_text() else lines
    assert len(found) > 10
    return [line for line in found if len(line) >= 16]


def assert_no_secret(bench: Bench, output: str) -> None:
    """No line of any key and no passphrase is in the text, in any wrapping."""
    text = "".join(output.split())
    assert "".join(PASSPHRASE.split()) not in text
    assert "PRIVATEKEY-----" not in text
    assert [line for line in secret_lines(bench.pki) if line in text] == []
