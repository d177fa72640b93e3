#!/usr/bin/env bash
# Check this machine, start the Compose stack, and wait until it is healthy. See --help.
case $- in *p*) ;; *) exec env -u SHELLOPTS -u BASHOPTS bash -p "$0" "$@" ;; esac
set -euo pipefail
root="$(dirname "$(dirname "$(readlink -f "$0")")")"
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$root/scripts/lib.sh"
cd "$root"

ENGINE=20.10  # minimum version of Docker Engine
COMPOSE=2.24  # minimum version of Docker Compose: the first with optional env files
MEMORY_MIB=3500
DISK_MIB=6000
TIMEOUT=300 # seconds to wait until the stack is healthy

usage() {
  cat << END
Usage: scripts/setup.sh [--check] [--elk] [--random-passwords]

Check Docker, memory, disk and ports, build and start the stack, wait until it is healthy, and print the URLs.
Settings are in .env.

  --check              check this machine and exit
  --elk                also collect logs with Elasticsearch, Kibana and Filebeat (needs 2.5 GiB more memory)
  --random-passwords   write random passwords to secrets/, which git ignores and which override those in .env;
                       only before the first start, because the databases keep their initial passwords

Exit codes: 0 if the stack is up, 1 if it failed to start, 2 if this machine cannot run it.
END
}

check_docker() {
  command -v docker > /dev/null || fail "Docker is not installed: install Docker Desktop, or Docker Engine (https://docs.docker.com/get-docker/)"
  local engine compose
  engine="$(docker version --format '{{.Server.Version}}' 2> /dev/null)" ||
    fail "cannot connect to the Docker engine: start it, and check your permissions (docker info)"
  at_least "$ENGINE" "$engine" || fail "Docker Engine $ENGINE or newer is required, found $engine"
  compose="$(docker compose version --short 2> /dev/null)" || fail "Docker Compose 2 is not installed (docker compose version)"
  at_least "$COMPOSE" "${compose#v}" || fail "Docker Compose $COMPOSE or newer is required, found $compose"
  echo "ok    Docker Engine $engine, Compose $compose"
}

# at_least MINIMUM VERSION: compares major and minor version.
at_least() {
  local minimum_major minimum_minor major minor
  IFS=. read -r minimum_major minimum_minor <<< "$1"
  IFS=. read -r major minor _ <<< "$2"
  minor="${minor%%[!0-9]*}"
  ((major > minimum_major || (major == minimum_major && minor >= minimum_minor)))
}

check_memory() {
  local mib=$(($(docker info --format '{{.MemTotal}}') / 1048576))
  ((mib >= MEMORY_MIB)) || warn "Docker has $mib MiB of memory; the stack needs about $((MEMORY_MIB / 1000 + 1)) GiB (Docker Desktop: Settings, Resources)"
}

# Checks the disk of Docker's data directory. If that is inside a virtual machine, checks the disk of this folder instead.
check_disk() {
  local folder mib
  folder="$(docker info --format '{{.DockerRootDir}}')"
  [[ -d "$folder" ]] || folder=.
  mib="$(df -Pm "$folder" | awk 'NR == 2 { print $4 }')"
  ((mib >= DISK_MIB)) || warn "only $mib MiB free on the disk of $folder; images and data need about $DISK_MIB MiB"
}

check_ports() {
  local port own
  own="$(docker ps --filter "label=com.docker.compose.project=$project" --format '{{.Ports}}')"
  for port in $(docker compose config | sed -n 's/^ *published: "\([0-9]*\)"$/\1/p'); do
    if [[ "$own" != *":$port->"* ]] && is_in_use "$port"; then
      fail "port $port on 127.0.0.1 is in use: stop the program that uses it, or choose another port in .env"
    fi
  done
  echo "ok    ports"
}

is_in_use() {
  (exec 3<> "/dev/tcp/127.0.0.1/$1") 2> /dev/null
}

warn() {
  echo "warn  $1"
}

# Only before the first start: afterwards MongoDB and Grafana ignore changed passwords.
write_passwords() {
  ls secrets/*.env > /dev/null 2>&1 && fail "secrets/ already contains passwords; to change them, see docs/operations.md"
  has_data && fail "the stack already has data, which is protected by the passwords in .env; to change them, see" \
    "docs/operations.md, or delete the data with scripts/teardown.sh --volumes"
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
  echo "ok    random passwords written to secrets/"
}

has_data() {
  [[ -n "$(docker volume ls --quiet --filter "label=com.docker.compose.project=$project")" ]]
}

# Letters and digits only, so that env files, URIs and shells need no escaping.
password() {
  echo "$1=$(head -c 96 /dev/urandom | base64 | tr -dc 'A-Za-z0-9' | cut -c 1-32)"
}

start() {
  echo "Starting the stack (the first start downloads and builds images) ..."
  if ! docker compose up --detach --build --wait --wait-timeout "$TIMEOUT"; then
    docker compose ps --all --format 'table {{.Service}}\t{{.Status}}'
    echo "The stack failed to start. To find the reason: docker compose logs SERVICE" >&2
    exit 1
  fi
}

print_urls() {
  cat << END

The stack is up.
  Grafana        http://$(docker compose port grafana 3000)    user admin, password in $(password_file grafana)
  Prometheus     http://$(docker compose port prometheus 9090)
  Alertmanager   http://$(docker compose port alertmanager 9093)
  Kafka          $(docker compose port kafka 29092)           for clients on this machine
END
  [[ "$elk" == no ]] || print_kibana_url
  cat << END

Audit all messages       docker compose exec consumer python -m src.audit
Scale the consumer       docker compose up -d --scale consumer=3
Follow the logs          docker compose logs -f producer consumer
Stop and keep the data   scripts/teardown.sh
END
}

password_file() {
  if [[ -e "secrets/$1.env" ]]; then echo "secrets/$1.env"; else echo .env; fi
}

print_kibana_url() {
  echo "  Kibana         http://$(docker compose port kibana 5601)    user elastic, password in $(password_file elasticsearch)"
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
  TIMEOUT=600
fi
check_docker
project="$(docker compose config | sed -n 's/^name: //p')"
check_memory
check_disk
check_ports
[[ "$only_check" == no ]] || exit 0
[[ "$random_passwords" == no ]] || write_passwords
start
print_urls
