#!/usr/bin/env bash
# The rules that a machine can keep, each in a line: ok, or what is wrong.
# shellcheck disable=SC2329 # functions are called by way of `check`
case $- in *p*) ;; *) exec env -u SHELLOPTS -u BASHOPTS bash -p "$0" "$@" ;; esac
set -euo pipefail
root="$(dirname "$(dirname "$(readlink -f "$0")")")"
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$root/scripts/lib.sh"
cd "$root"

usage() {
  cat << 'END'
Usage: scripts/check.sh

Checks style (ruff), types (mypy --strict), that imports point down (import-linter), that the files which both
services have are the same (cmp), and the shell scripts (shellcheck). Changes nothing; the tools are installed
into .venv. Mend most of what ruff finds with:

  .venv/bin/ruff check --fix . && .venv/bin/ruff format .

Exit status: 0 if all is well, 1 if a check failed, 2 if the tools can't be installed.
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

types_of() {
  MYPYPATH="$PWD/scripts" in_folder "$1" "$PYTHON" -m mypy --config-file "$PWD/pyproject.toml" "${@:2}"
}

shell_scripts_are_sound() {
  find . \( -name .git -o -name .local -o -name '*venv' \) -prune -o \
    \( -name '*.sh' -o -path ./.ci/run \) -exec "$tools/shellcheck" --external-sources {} +
}

case "${1:-}" in
  "") ;;
  -h | --help) usage && exit ;;
  *) fail "unknown option $1; see --help" ;;
esac

use_dev_environment
tools="$(dirname "$PYTHON")"
failures=0

check "style (ruff check)" "$PYTHON" -m ruff check --quiet .
check "format (ruff format)" "$PYTHON" -m ruff format --check --quiet .
for service in producer consumer; do
  check "types of the $service (mypy)" types_of "$service" src tests "../scripts/chaos/$service" "../scripts/fuzz/$service"
  check "imports of the $service point down (import-linter)" in_folder "$service" "$tools/lint-imports" --no-logo
done
check "types of the scripts (mypy)" types_of . scripts tests
check "mirrored files are equal (cmp)" mirrored_files_are_equal
check "lock files match the requirements" scripts/lock.sh --check
check "shell scripts (shellcheck)" shell_scripts_are_sound

exit $((failures > 0))
