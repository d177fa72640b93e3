#!/usr/bin/env bash
# Pin all packages, including transitive dependencies, with their hashes. See --help.
case $- in *p*) ;; *) exec env -u SHELLOPTS -u BASHOPTS bash -p "$0" "$@" ;; esac
set -euo pipefail
root="$(dirname "$(dirname "$(readlink -f "$0")")")"
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$root/scripts/lib.sh"
cd "$root"

usage() {
  cat << 'END'
Usage: scripts/lock.sh [--check | --upgrade]

Writes the lock files (*.lock) from the requirements files (requirements*.txt), for Linux, macOS and Windows, and for
Python 3.11 and newer. The images and the scripts install from the lock files. Run it after a change to a requirements
file, and commit both.

  --check     only compare the lock files with the requirements; works offline
  --upgrade   upgrade transitive dependencies instead of keeping their versions

Exit codes: 0 if the lock files are up to date, 1 if they are not or cannot be written, 2 for a wrong option.
END
}

# for_each_lock COMMAND...: runs COMMAND LOCK REQUIREMENTS... for each lock file. The first constrains the others.
for_each_lock() {
  "$@" requirements-dev.lock {producer,consumer}/requirements-dev.txt {scripts/local,tests}/requirements.txt
  "$@" producer/requirements.lock producer/requirements.txt
  "$@" consumer/requirements.lock consumer/requirements.txt
  "$@" consumer/requirements-schema-registry.lock consumer/requirements-schema-registry.txt
  "$@" scripts/local/requirements.lock scripts/local/requirements.txt
}

check_lock() {
  "$PYTHON" scripts/packages.py check-lock "$@" || result=1
}

compile() {
  local lock="$1" options=()
  shift
  [[ "$lock" == requirements-dev.lock ]] || options=(--constraint requirements-dev.lock)
  "$PYTHON" -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes "${options[@]+"${options[@]}"}" \
    "${upgrade[@]+"${upgrade[@]}"}" --output-file "$lock" "$@"
}

upgrade=()
result=0
case "${1:-}" in
  "") ;;
  --check)
    PYTHON="$(find_python)"
    for_each_lock check_lock
    exit "$result"
    ;;
  --upgrade) upgrade=(--upgrade) ;;
  -h | --help) usage && exit ;;
  *) fail "unknown option $1; see --help" ;;
esac

ensure_venv "$root/.venv" "$root/requirements-dev.lock" # not its requirements: they may name a new package
index="${PIP_INDEX_URL:-$("$PYTHON" -m pip config get global.index-url 2> /dev/null || true)}"
[[ -z "$index" ]] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"
for_each_lock compile
