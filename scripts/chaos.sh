#!/usr/bin/env bash
# Attacks the system and counts: nothing lost, nothing twice; --help says more.
case $- in *p*) ;; *) exec env -u SHELLOPTS -u BASHOPTS bash -p "$0" "$@" ;; esac
set -euo pipefail
root="$(dirname "$(dirname "$(readlink -f "$0")")")"
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$root/scripts/lib.sh"

use_local_environment
PYTHONPATH="$root/scripts" exec "$PYTHON" -m chaos "$@"
