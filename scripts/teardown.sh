#!/usr/bin/env bash
# Takes the stack down, whatever profiles and extra consumers it was started with. --help says more.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

usage() {
  cat << END
Usage: scripts/teardown.sh [--volumes [--yes]]

Stops and removes the containers and the network. The data stays, and the next start goes on with it.

  --volumes   delete the data too: all messages, documents, dead letters, undelivered messages, metrics, logs. Asks first
  --yes       don't ask

Exit status: 0 if nothing is left, 1 if Docker could not do it, 2 if you said no.
END
}

confirm() {
  local answer
  [[ "$sure" == yes ]] && return
  [[ -t 0 ]] || fail "--volumes deletes all data; from a script say --volumes --yes"
  read -r -p "Delete all data of the project $project? Type its name to go on: " answer
  [[ "$answer" == "$project" ]] || fail "nothing was deleted"
}

delete_data=no
sure=no
for option in "$@"; do
  case "$option" in
    --volumes) delete_data=yes ;;
    --yes) sure=yes ;;
    -h | --help) usage && exit ;;
    *) fail "unknown option $option; see --help" ;;
  esac
done

project="$(docker compose config | sed -n 's/^name: //p')"
down=(docker compose --profile '*' down --remove-orphans)
if [[ "$delete_data" == yes ]]; then
  confirm
  down+=(--volumes) # ZooKeeper's and Kafka's go together: each refuses the other's half of a cluster
fi
"${down[@]}"
