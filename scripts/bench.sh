#!/usr/bin/env bash
# Measures throughput, CPU time, memory and latency; see --help.
case $- in *p*) ;; *) exec env -u SHELLOPTS -u BASHOPTS bash -p "$0" "$@" ;; esac
set -euo pipefail
root="$(dirname "$(dirname "$(readlink -f "$0")")")"
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$root/scripts/lib.sh"

use_local_environment
PYTHONPATH="$root/scripts" exec "$PYTHON" -m bench "$@"
