#!/usr/bin/env bash
# Everything that this machine can test, with a summary of what ran.
# shellcheck disable=SC2329 # functions are called by way of `step`
case $- in *p*) ;; *) exec env -u SHELLOPTS -u BASHOPTS bash -p "$0" "$@" ;; esac
set -euo pipefail
root="$(dirname "$(dirname "$(readlink -f "$0")")")"
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$root/scripts/lib.sh"
cd "$root"

COVERAGE=90 # percent of lines and branches, each service

usage() {
  cat << END
Usage: scripts/test.sh

Runs the tests of both services (at least $COVERAGE % of their lines and branches are covered), those of the scripts,
the comparison of the files which both services have, and a local run of 2,000 messages with its audit; where a
Docker engine answers, also the tests on real Kafka and MongoDB containers, and those of the whole stack (15 minutes
of faults; it runs in a project and on ports of its own). What is needed is installed into
.venv and .local/venv. For one test alone:

  cd consumer && ../.venv/bin/python -m pytest tests/test_assignment.py

Exit status: 0 if all passed, 1 if something failed, 2 if what is needed can't be installed.
END
}

# step NAME COMMAND...: shows what the command says, and keeps its verdict for the summary.
step() {
  local name="$1" verdict=ok
  shift
  printf '\n== %s\n' "$name"
  if ! "$@" 2>&1 | tee "$said"; then
    verdict=FAIL
    failures=$((failures + 1))
  fi
  summary+="$(printf '  %-5s %-32s %s' "$verdict" "$name" "$(said_in_short)")"$'\n'
}

# The sentence of an audit or of the coverage, or else pytest's counts.
said_in_short() {
  { grep -E '^(PASS|FAIL)[: ]' "$said" || grep -E '[0-9]+ (passed|failed|errors?|deselected)' "$said" || true; } | tail -n 1
}

tests_of() {
  (cd "$1" && "$PYTHON" -m pytest -q "${@:2}")
}

case "${1:-}" in
  "") ;;
  -h | --help) usage && exit ;;
  *) fail "unknown option $1; see --help" ;;
esac

use_dev_environment
said="$(mktemp)"
trap 'rm -f "$said"' EXIT
failures=0
summary=""

for service in producer consumer; do
  step "$service" tests_of "$service" -m "not docker" --cov=src --cov-branch --cov-fail-under="$COVERAGE"
done
step "scripts" tests_of . -m "not docker" tests
step "mirrored files" mirrored_files_are_equal
step "local run with audit" scripts/local.sh --messages 2000 --rate 0

if docker info > /dev/null 2>&1; then
  for service in producer consumer; do
    step "$service on Docker containers" tests_of "$service" -m docker
  done
  step "the whole stack by Docker Compose" tests_of . -m docker tests
  remark="Docker answers here."
else
  remark="No Docker engine answers here, so the tests on real Kafka and MongoDB containers did not run."
fi

printf '\nSummary (%s, %s)\n%s\n%s\n' "$(uname -sm)" "$("$PYTHON" --version)" "$summary" "$remark"
exit $((failures > 0))
