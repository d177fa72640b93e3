#!/usr/bin/env bash
# The whole system in containers: checks this machine, starts the stack, waits until it is healthy. --help says more.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

ENGINE=20.10  # the oldest Docker Engine that the stack was made for
COMPOSE=2.24  # the oldest Docker Compose that knows optional env files
MEMORY_MIB=3500
DISK_MIB=6000
PATIENCE=300 # seconds until all must be healthy

usage() {
  cat << END
Usage: scripts/setup.sh [--check] [--elk] [--random-passwords]

Checks Docker, memory, disk and ports, builds and starts the stack, waits until it is healthy, and says where to look.
What can be set stands in .env.

  --check              only check this machine
  --elk                with Elasticsearch, Kibana and Filebeat, which collect the services' logs; 2.5 GiB more memory
  --random-passwords   write passwords of chance into secrets/, which git ignores and which win over those of .env.
                       Before the first start only: the databases keep the passwords that they were made with

Exit status: 0 if the stack is up, 1 if it did not come up, 2 if this machine can't run it.
END
}

check_docker() {
  command -v docker > /dev/null || fail "Docker is missing: install Docker Desktop, or Docker Engine (https://docs.docker.com/get-docker/)"
  local engine compose
  engine="$(docker version --format '{{.Server.Version}}' 2> /dev/null)" ||
    fail "no Docker engine answers: start it, and see that you may use it (docker info)"
  at_least "$ENGINE" "$engine" || fail "Docker Engine $ENGINE or newer is needed, and here is $engine"
  compose="$(docker compose version --short 2> /dev/null)" || fail "Docker Compose 2 is missing (docker compose version)"
  at_least "$COMPOSE" "${compose#v}" || fail "Docker Compose $COMPOSE or newer is needed, and here is $compose"
  echo "ok    Docker Engine $engine, Compose $compose"
}

# at_least OLDEST VERSION: the first two numbers count.
at_least() {
  local oldest_major oldest_minor major minor
  IFS=. read -r oldest_major oldest_minor <<< "$1"
  IFS=. read -r major minor _ <<< "$2"
  minor="${minor%%[!0-9]*}"
  ((major > oldest_major || (major == oldest_major && minor >= oldest_minor)))
}

check_memory() {
  local mib=$(($(docker info --format '{{.MemTotal}}') / 1048576))
  ((mib >= MEMORY_MIB)) || warn "Docker has $mib MiB of memory; the stack wants about $((MEMORY_MIB / 1000 + 1)) GiB (Docker Desktop: Settings, Resources)"
}

# Where Docker keeps its data; inside a virtual machine that can't be seen from here, and this folder's disk stands for it.
check_disk() {
  local folder mib
  folder="$(docker info --format '{{.DockerRootDir}}')"
  [[ -d "$folder" ]] || folder=.
  mib="$(df -Pm "$folder" | awk 'NR == 2 { print $4 }')"
  ((mib >= DISK_MIB)) || warn "only $mib MiB are free on the disk of $folder; images and data want about $DISK_MIB"
}

check_ports() {
  local port ours
  ours="$(docker ps --filter "label=com.docker.compose.project=$project" --format '{{.Ports}}')"
  for port in $(docker compose config | sed -n 's/^ *published: "\([0-9]*\)"$/\1/p'); do
    if [[ "$ours" != *":$port->"* ]] && is_taken "$port"; then
      fail "port $port of 127.0.0.1 is taken: end the program that has it, or choose another one in .env"
    fi
  done
  echo "ok    the ports are free"
}

is_taken() {
  (exec 3<> "/dev/tcp/127.0.0.1/$1") 2> /dev/null
}

warn() {
  echo "warn  $1"
}

# Only where no database has been made with others: neither MongoDB nor Grafana would take them.
write_passwords() {
  ls secrets/*.env > /dev/null 2>&1 && fail "secrets/ holds passwords already; docs/operations.md says how to change them"
  has_data && fail "the stack has data, made with the passwords of .env, which new ones would lock out;" \
    "docs/operations.md says how to change them, scripts/teardown.sh --volumes deletes the data"
  (
    umask 077
    password MONGO_INITDB_ROOT_PASSWORD > secrets/mongodb.env
    password MONGODB_CONSUMER_PASSWORD > secrets/consumer.env
    password MONGODB_PASSWORD > secrets/mongodb-exporter.env
    password GF_SECURITY_ADMIN_PASSWORD > secrets/grafana.env
    password ELASTIC_PASSWORD > secrets/elasticsearch.env
    password KIBANA_PASSWORD > secrets/kibana.env
    password FILEBEAT_PASSWORD > secrets/filebeat.env
  )
  echo "ok    passwords of chance are in secrets/, which only you can read"
}

has_data() {
  [[ -n "$(docker volume ls --quiet --filter "label=com.docker.compose.project=$project")" ]]
}

# Letters and digits, so that it is the same in an env file, a URI and a shell.
password() {
  echo "$1=$(head -c 96 /dev/urandom | base64 | tr -dc 'A-Za-z0-9' | cut -c 1-32)"
}

start() {
  echo "Starting; the first time images are fetched and built ..."
  if ! docker compose up --detach --build --wait --wait-timeout "$PATIENCE"; then
    docker compose ps --all --format 'table {{.Service}}\t{{.Status}}'
    echo "The stack did not come up. What a service says of it: docker compose logs SERVICE" >&2
    exit 1
  fi
}

tell_where() {
  cat << END

The stack is up.
  Grafana        http://$(docker compose port grafana 3000)    user admin, password in $(password_place grafana)
  Prometheus     http://$(docker compose port prometheus 9090)
  Alertmanager   http://$(docker compose port alertmanager 9093)
  Kafka          $(docker compose port kafka 29092)           for programs on this machine
END
  [[ "$elk" == no ]] || tell_where_the_logs_are
  cat << END

Where is every message?     docker compose exec consumer python -m src.audit
More consumers              docker compose up -d --scale consumer=3
What the services say       docker compose logs -f producer consumer
Stop, and keep the data     scripts/teardown.sh
END
}

password_place() {
  if [[ -e "secrets/$1.env" ]]; then echo "secrets/$1.env"; else echo .env; fi
}

tell_where_the_logs_are() {
  echo "  Kibana         http://$(docker compose port kibana 5601)    user elastic, password in $(password_place elasticsearch)"
}

only_check=no
elk=no
random_passwords=no
for option in "$@"; do
  case "$option" in
    --check) only_check=yes ;;
    --elk) elk=yes ;;
    --random-passwords) random_passwords=yes ;;
    -h | --help) usage && exit ;;
    *) fail "unknown option $option; see --help" ;;
  esac
done

if [[ "$elk" == yes ]]; then
  export COMPOSE_PROFILES="${COMPOSE_PROFILES:+$COMPOSE_PROFILES,}elk"
  MEMORY_MIB=$((MEMORY_MIB + 2500))
  DISK_MIB=$((DISK_MIB + 4000))
  PATIENCE=600
fi
check_docker
project="$(docker compose config | sed -n 's/^name: //p')"
check_memory
check_disk
check_ports
[[ "$only_check" == no ]] || exit 0
[[ "$random_passwords" == no ]] || write_passwords
start
tell_where
