#!/usr/bin/env bash
# Random and mutated inputs for what reads inputs; --help says more.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$root/scripts/lib.sh"

mkdir -p "$root/.local"
ensure_venv "$root/.local/venv" "$root/scripts/local/requirements.txt"
PYTHONPATH="$root/scripts" exec "$PYTHON" -m fuzz "$@"
