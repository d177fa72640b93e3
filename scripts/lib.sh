# shellcheck shell=bash
# Sourced by the scripts beside it, which set `root`. Compatible with the bash 3.2 of macOS.
# shellcheck disable=SC2154
#
# The scripts start alike: they restart themselves in bash's privileged mode, which ignores functions and options from
# the environment, and find this folder through symbolic links. What follows are variables of the user's environment
# that would change how tools and interpreters behave.
set +o posix
unset BASH_ENV ENV CDPATH POSIXLY_CORRECT GREP_OPTIONS GREP_COLOR GREP_COLORS MYPYPATH __PYVENV_LAUNCHER__
for variable in "${!PYTHON@}" "${!PYTEST@}" "${!RUFF_@}" "${!COVERAGE_@}"; do
  [[ "$variable" == PYTHON ]] || unset "$variable" # PYTHON is the interpreter to create environments with
done
unset variable
export LC_ALL=C # messages that scripts read, and decimal points; Python uses UTF-8 with it

fail() {
  echo "${0##*/}: $*" >&2
  exit 2
}

# Both set PYTHON to the interpreter of a virtual environment that has all packages of a lock file. A PYTHON from outside
# is the interpreter to create the environment with.
use_dev_environment() {
  ensure_venv "$root/.venv" "$root/requirements-dev.lock" \
    "$root"/{producer,consumer}/requirements-dev.txt "$root"/{scripts/local,tests}/requirements.txt
}

use_local_environment() {
  mkdir -p "$root/.local"
  ensure_venv "$root/.local/venv" "$root/scripts/local/requirements.lock" "$root/scripts/local/requirements.txt"
}

# ensure_venv FOLDER LOCK REQUIREMENTS...
# Creates or updates the environment unless it was completed from this lock file before, by the same Python.
ensure_venv() {
  local venv="$1" lock="$2" stamp="$1/complete.stamp"
  if ! { [[ -x "$venv/bin/python" ]] && state_of "$venv" "$lock" | cmp -s - "$stamp"; }; then
    make_venv "$venv"
    rm -f "$stamp"
    install_packages "$venv" "${@:2}"
    state_of "$venv" "$lock" > "$stamp"
  fi
  PYTHON="$venv/bin/python"
}

state_of() {
  "$1/bin/python" --version
  cat "$2"
}

# A working environment is kept: it may contain packages that the user has added.
make_venv() {
  local venv="$1" python
  if is_new_enough "$venv/bin/python" && "$venv/bin/python" -m pip --version > /dev/null 2>&1; then
    return
  fi
  python="$(find_python)"
  "$python" -c 'import ensurepip, venv' 2> /dev/null ||
    fail "this Python cannot create virtual environments; install its venv module (Debian, Ubuntu: apt install python3-venv)"
  "$python" -m venv --clear "$venv" || fail "cannot create the virtual environment $venv"
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11 python; do
    if is_new_enough "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  command -v python3 > /dev/null || fail "Python not found; install Python 3.11 or newer (https://www.python.org/downloads/)"
  fail "Python 3.11 or newer is required, found $(python3 --version 2>&1); https://www.python.org/downloads/"
}

is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' > /dev/null 2>&1
}

# install_packages VENV LOCK REQUIREMENTS...
install_packages() {
  local venv="$1" log="$1/pip.log"
  echo "Installing packages into $venv (up to a minute the first time) ..." >&2
  if ! "$venv/bin/python" "$root/scripts/packages.py" install "${@:2}" > "$log" 2>&1; then
    cat "$log" >&2
    fail "cannot install the packages; the reason is above"
  fi
}

# The modules in utils/, except metrics.py, are identical in both services; the scripts use a copy of one of them.
mirrored_files_are_equal() {
  diff -r -q -x metrics.py -x __pycache__ producer/src/utils consumer/src/utils &&
    diff -q producer/src/utils/output.py scripts/local/output.py &&
    diff -q producer/tests/docker_engine.py consumer/tests/docker_engine.py &&
    diff -q producer/tests/kafka_containers.py consumer/tests/kafka_containers.py &&
    diff -q producer/tests/docker_engine.py tests/docker_engine.py
}
