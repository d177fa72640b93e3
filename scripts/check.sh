#!/usr/bin/env bash
# Run all static checks. See --help.
# shellcheck disable=SC2329 # functions are called by `check`
case $- in *p*) ;; *) exec env -u SHELLOPTS -u BASHOPTS bash -p "$0" "$@" ;; esac
set -euo pipefail
root="$(dirname "$(dirname "$(readlink -f "$0")")")"
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$root/scripts/lib.sh"
cd "$root"

usage() {
  cat << 'END'
Usage: scripts/check.sh [--fast]

Checks style and format (ruff), types (mypy --strict), import layers (import-linter), mirrored files (diff), lock files,
and shell scripts (shellcheck). Changes nothing. The tools are installed into .venv. To fix most style problems:

  .venv/bin/ruff check --fix . && .venv/bin/ruff format .

  --fast   skip types and import layers; takes a second, for a commit hook

Exit codes: 0 if all checks passed, 1 if one failed, 2 if the tools cannot be installed.
END
}

# check NAME COMMAND...
check() {
  local name="$1" output
  shift
  if output="$("$@" 2>&1)"; then
    echo "ok    $name"
  else
    printf 'FAIL  %s\n%s\n' "$name" "$output"
    failures=$((failures + 1))
  fi
}

in_folder() {
  cd "$1" && "${@:2}"
}

check_types() {
  MYPYPATH="$PWD/scripts" in_folder "$1" "$PYTHON" -m mypy --config-file "$PWD/pyproject.toml" "${@:2}"
}

check_shell_scripts() {
  find . \( -name .git -o -name .local -o -name '*venv' \) -prune -o \
    \( -name '*.sh' -o -path ./.ci/run \) -exec "$tools/shellcheck" --external-sources {} +
}

fast=no
case "${1:-}" in
  "") ;;
  --fast) fast=yes ;;
  -h | --help) usage && exit ;;
  *) fail "unknown option $1; see --help" ;;
esac

use_dev_environment
tools="$(dirname "$PYTHON")"
failures=0

check "style (ruff check)" "$PYTHON" -m ruff check --quiet .
check "format (ruff format)" "$PYTHON" -m ruff format --check --quiet .
check "mirrored files (diff)" mirrored_files_are_equal
check "lock files" scripts/lock.sh --check
check "shell scripts (shellcheck)" check_shell_scripts
if [[ "$fast" == no ]]; then
  for service in producer consumer; do
    check "types of the $service (mypy)" check_types "$service" src tests "../scripts/chaos/$service" "../scripts/fuzz/$service"
    check "import layers of the $service (import-linter)" in_folder "$service" "$tools/lint-imports" --no-logo
  done
  check "types of the scripts (mypy)" check_types . scripts tests
fi

exit $((failures > 0))
