#!/bin/bash
# Runs the scenarios of Molecule one after another, or those that are named, and says at the end how each went.
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")/.." || exit
export PATH="$PWD/.venv/bin:$PATH"
export MOLECULE_GLOB='molecule/*/molecule.yml'
if [ $# -eq 0 ]; then
    set -- $(for file in molecule/*/molecule.yml; do basename "$(dirname "$file")"; done)
fi
failed=0
summary=''
for scenario in "$@"; do
    began=$SECONDS
    if molecule test -s "$scenario"; then
        outcome=passed
    else
        outcome=FAILED
        failed=1
    fi
    summary+=$(printf '%-20s %s %4d s' "$scenario" "$outcome" $((SECONDS - began)))$'\n'
done
printf '\n%s' "$summary"
exit $failed
