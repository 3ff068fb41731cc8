#!/usr/bin/env bash
# Sets this checkout up on a bare Debian machine: a virtual environment (.venv) with the packages that pyproject.toml
# names, and the Debian packages that the rehearsal needs. Says in one line what it installs; does nothing and needs
# no network when all of it is there already.
set -euo pipefail
cd "$(dirname "$0")/.."

die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# Programs that the rehearsal calls, with the Debian package that brings each.
programs=(ip:iproute2 nft:nftables openvpn:openvpn unshare:util-linux nsenter:util-linux mount:mount ping:iputils-ping
    datefudge:datefudge)

install_debian() {
    local missing=() entry
    for entry in "${programs[@]}"; do
        PATH="$PATH:/usr/sbin:/sbin" command -v "${entry%%:*}" >/dev/null || missing+=("${entry#*:}")
    done
    [ "${#missing[@]}" -eq 0 ] && return
    command -v apt-get >/dev/null || die "needs the programs of these packages: ${missing[*]} (no apt-get here: install them by hand)"
    local root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "run as root once, to install: ${missing[*]}"
        root=(sudo)
    fi
    echo "setup: installing Debian packages: ${missing[*]}"
    "${root[@]}" apt-get update -qq
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
}

# The newest Python from 3.11 to 3.14 that can make virtual environments, also pyenv's and those in /opt.
newest_python() {
    local minor candidate
    for minor in 14 13 12 11; do
        for candidate in "$(command -v "python3.$minor" || true)" \
            "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3."$minor".*/bin/python3 /opt/python*/bin/python3."$minor" \
            "$(command -v python3 || true)"; do
            [ -x "$candidate" ] || continue
            # A pyenv shim exists also for versions that are not active: ask the program itself.
            if "$candidate" -c "import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, $minor))" 2>/dev/null; then
                echo "$candidate"
                return
            fi
        done
    done
    return 1
}

# Compiles what is used, ahead: a playbook starts a hundred short processes, and where the shell sets
# PYTHONDONTWRITEBYTECODE each of them would compile boto3 anew. Of the collections that the package "ansible" brings
# only those of requirements.yml are used; compiling all of them would take longer than all else.
compile_python() {
    local used
    used=$(sed -n 's/^ *- name: //p' requirements.yml | tr . / | paste -sd '|')
    .venv/bin/python -m compileall -q -j 0 -x "ansible_collections/(?!($used)/)|/tests?/" .venv/lib/python3.*/site-packages
}

install_python() {
    local python stamp wanted
    if ! python=$(newest_python); then
        command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ] || die "needs Python 3.11 or newer with venv (Debian: apt-get install python3-venv)"
        echo "setup: installing Debian packages: python3 python3-venv"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3 python3-venv >/dev/null
        python=$(newest_python) || die "Debian's python3 is older than 3.11: install a newer Python"
    fi
    stamp=.venv/setup-stamp
    wanted="$("$python" -c 'import sys; print(sys.version)') $(sha256sum pyproject.toml)"
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && return
    # Through a link the folder behind it would be emptied, which another checkout uses.
    [ -L .venv ] && die ".venv is a link to $(readlink .venv), which does not fit this pyproject.toml; remove the link, or run setup where it leads"
    echo "setup: installing Python packages of pyproject.toml into .venv ($("$python" --version), less than a minute)"
    "$python" -m venv --clear .venv
    .venv/bin/python -m pip install -q --disable-pip-version-check 'pip>=25.1,<27'
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-compile --group run --group rehearsal --group test
    compile_python
    printf '%s' "$wanted" >"$stamp"
}

install_debian
install_python
