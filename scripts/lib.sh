# shellcheck shell=bash
# Sourced by the scripts beside it. Compatible with the bash 3.2 of macOS.
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

# ensure_venv FOLDER REQUIREMENTS...
# Sets PYTHON to the interpreter of the virtual environment FOLDER, which holds what the REQUIREMENTS files pin.
# Makes or completes the environment only where these files, or those that they include, are not what it was made from.
# A PYTHON from outside is the interpreter to make it with.
ensure_venv() {
  local venv="$1" stamp="$1/requirements.stamp"
  shift
  if ! { [[ -x "$venv/bin/python" ]] && requirements_in "$@" | cmp -s - "$stamp"; }; then
    make_venv "$venv"
    install_requirements "$venv" "$@"
    requirements_in "$@" > "$stamp"
  fi
  PYTHON="$venv/bin/python"
}

# The text of these files, and of those that they include by `-r`.
requirements_in() {
  local file included
  for file in "$@"; do
    cat "$file"
    while read -r included; do
      requirements_in "$(dirname "$file")/$included"
    done < <(sed -n 's/^-r *//p' "$file")
  done
}

# An environment that works is kept, so that nobody's own one is thrown away.
make_venv() {
  local venv="$1" python
  if is_new_enough "$venv/bin/python" && "$venv/bin/python" -m pip --version > /dev/null 2>&1; then
    return
  fi
  python="$(find_python)"
  "$python" -c 'import ensurepip, venv' 2> /dev/null ||
    fail "this Python can't make virtual environments: install its venv module (Debian, Ubuntu: apt install python3-venv)"
  "$python" -m venv --clear "$venv" || fail "could not make the virtual environment $venv"
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11 python; do
    if is_new_enough "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  command -v python3 > /dev/null || fail "Python is missing: install Python 3.11 or newer (https://www.python.org/downloads/)"
  fail "Python 3.11 or newer is needed, and here is only $(python3 --version 2>&1): https://www.python.org/downloads/"
}

is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' > /dev/null 2>&1
}

install_requirements() {
  local venv="$1" log="$1/pip.log" file options=()
  shift
  for file in "$@"; do
    options+=(-r "$file")
  done
  echo "Installing the pinned packages into $venv (the first time up to a minute) ..." >&2
  if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${options[@]}" > "$log" 2>&1; then
    cat "$log" >&2
    fail "pip could not install the packages; its reason stands above"
  fi
}

# The modules in utils/, except metrics.py, are identical in both services.
mirrored_files_are_equal() {
  diff --recursive --brief --exclude metrics.py --exclude __pycache__ producer/src/utils consumer/src/utils
}
