#!/bin/bash
# Runs the scenarios of the roles, or those that are named, two at a time (MOLECULE_JOBS: another number). Shows the output
# of those that fail. The scenario default, the whole farm, runs only when it is named: tests/integration/test_farm.py goes
# the same way and sees more.
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")/.." || exit
export PATH="$PWD/.venv/bin:$PATH"
export MOLECULE_GLOB='molecule/*/molecule.yml'
export LOGS=$PWD/.cache/molecule
mkdir -p "$LOGS"

scenario() {
    local began=$SECONDS
    if molecule test -s "$1" >"$LOGS/$1.log" 2>&1 </dev/null; then
        printf '%-20s passed %4d s\n' "$1" $((SECONDS - began))
    else
        cat "$LOGS/$1.log"
        printf '%-20s FAILED %4d s (%s)\n' "$1" $((SECONDS - began)) "$LOGS/$1.log"
        return 1
    fi
}
export -f scenario

[ $# -gt 0 ] || set -- $(basename -a $(dirname molecule/*/molecule.yml) | grep -vx default)
printf '%s\n' "$@" | xargs -P "${MOLECULE_JOBS:-2}" -I '{}' bash -c 'scenario {}'
