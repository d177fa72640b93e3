#!/usr/bin/env bash
# Stop the Compose stack, including all profiles and additional consumers. See --help.
case $- in *p*) ;; *) exec env -u SHELLOPTS -u BASHOPTS bash -p "$0" "$@" ;; esac
set -euo pipefail
root="$(dirname "$(dirname "$(readlink -f "$0")")")"
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$root/scripts/lib.sh"
cd "$root"

usage() {
  cat << END
Usage: scripts/teardown.sh [--volumes [--yes]]

Stop and remove the containers and the network. Data is kept for the next start.

  --volumes   also delete all data: messages, documents, dead letters, undelivered messages, metrics, logs; asks first
  --yes       do not ask

Exit codes: 0 on success, 1 if Docker failed, 2 if not confirmed.
END
}

confirm() {
  local answer
  [[ "$confirmed" == yes ]] && return
  [[ -t 0 ]] || fail "--volumes deletes all data; without a terminal, confirm with --volumes --yes"
  read -r -p "Delete all data of project $project? Type the project name to confirm: " answer
  [[ "$answer" == "$project" ]] || fail "not confirmed; nothing was deleted"
}

delete_data=no
confirmed=no
for option in "$@"; do
  case "$option" in
    --volumes) delete_data=yes ;;
    --yes) confirmed=yes ;;
    -h | --help) usage && exit ;;
    *) fail "unknown option $option; see --help" ;;
  esac
done

project="$(docker compose config | sed -n 's/^name: //p')"
down=(docker compose --profile '*' down --remove-orphans)
if [[ "$delete_data" == yes ]]; then
  confirm
  down+=(--volumes) # all or none: Kafka and ZooKeeper do not start with volumes of different clusters
fi
"${down[@]}"
