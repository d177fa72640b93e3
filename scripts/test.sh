#!/usr/bin/env bash
# Run all tests that this machine can run. See --help.
# shellcheck disable=SC2329 # functions are called by `step`
case $- in *p*) ;; *) exec env -u SHELLOPTS -u BASHOPTS bash -p "$0" "$@" ;; esac
set -euo pipefail
root="$(dirname "$(dirname "$(readlink -f "$0")")")"
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$root/scripts/lib.sh"
cd "$root"

COVERAGE=90 # minimum percentage of lines and branches, for each service

usage() {
  cat << END
Usage: scripts/test.sh [--thorough]

Runs the tests of both services (with at least $COVERAGE % line and branch coverage) and of the scripts, and a local run of
2,000 messages with its audit. If a Docker engine is available, also runs the tests against Kafka and MongoDB containers.
Takes up to 4 minutes on two cores without Docker. What is needed is installed into .venv and .local/venv.

  --thorough   generate ten times as many examples in the property tests, and, if a Docker engine is available, test the
               whole stack with faults (15 minutes, in a Compose project and on ports of its own)

To run a single test:

  cd consumer && ../.venv/bin/python -m pytest tests/test_settings.py

Exit codes: 0 if all tests passed, 1 if one failed, 2 if the packages cannot be installed.
END
}

# step NAME COMMAND...: runs the command, and records its result and duration for the summary.
step() {
  local name="$1" result=ok began="$SECONDS"
  shift
  printf '\n== %s\n' "$name"
  if ! "$@" 2>&1 | tee "$output"; then
    result=FAIL
    failures=$((failures + 1))
  fi
  summary+="$(printf '  %-5s %-34s %4d s   %s' "$result" "$name" $((SECONDS - began)) "$(last_result)")"$'\n'
}

# The verdict of the audit, or else pytest's counts.
last_result() {
  { grep -E '^(PASS|FAIL)[: ]' "$output" || grep -E '[0-9]+ (passed|failed|errors?|deselected)' "$output" || true; } | tail -n 1
}

run_pytest() {
  (cd "$1" && "$PYTHON" -m pytest -q --hypothesis-profile="$profile" "${@:2}")
}

profile=ci
case "${1:-}" in
  "") ;;
  --thorough) profile=thorough ;;
  -h | --help) usage && exit ;;
  *) fail "unknown option $1; see --help" ;;
esac

use_dev_environment
output="$(mktemp)"
trap 'rm -f "$output"' EXIT
failures=0
summary=""
not_run=""
workers=$(($(getconf _NPROCESSORS_ONLN) * 2)) # two per core: the tests wait for brokers most of the time
parallel=(-n $((workers < 8 ? workers : 8)) --dist worksteal)

for service in producer consumer; do
  step "$service" run_pytest "$service" "${parallel[@]}" -m "not docker" --cov=src --cov-branch --cov-fail-under="$COVERAGE"
done
step "scripts" run_pytest . "${parallel[@]}" -m "not docker" tests
step "local run with audit" scripts/local.sh --messages 2000 --rate 0

if ! docker info > /dev/null 2>&1; then
  not_run="  the tests against Kafka and MongoDB containers, and of the whole stack: no Docker engine available"$'\n'
else
  for service in producer consumer; do
    step "$service with containers" run_pytest "$service" -m docker
  done
  if [[ "$profile" == thorough ]]; then
    step "whole stack with Docker Compose" run_pytest . -m docker tests
  else
    not_run="  the tests of the whole stack: see --thorough"$'\n'
  fi
fi
[[ "$profile" == thorough ]] || not_run+="  property tests with 1,000 examples each: see --thorough"$'\n'

printf '\nSummary (%s, %s, %d s)\n%s' "$(uname -sm)" "$("$PYTHON" --version)" "$SECONDS" "$summary"
[[ -z "$not_run" ]] || printf '\nNot run\n%s' "$not_run"
exit $((failures > 0))
