"""Creates the MongoDB users; run by the Compose job `mongodb-users` at every `docker compose up`.

With MONGODB_REPLICA_SET (docker-compose.replica-set.yml), it first makes a replica set of MONGODB_HOSTS.

Existing users get the passwords and roles currently configured in .env or secrets/. The consumer's connection string,
which contains its password, is written to a file that only the user of the services can read.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote_plus

from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError

URI_FILE = Path("/app/credentials/mongodb-uri")
TIMEOUT_MS = 30_000
AUTHENTICATION_FAILED = 18
NOT_YET_INITIALIZED = 94


class User(NamedTuple):
    name: str
    password: str
    roles: list[dict[str, str]]


class Servers(NamedTuple):
    """The hosts are those of the replica set, if there is one. The first one has the users."""

    hosts: Sequence[str] = ("mongodb:27017",)
    replica_set: str = ""

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Servers":
        hosts = environ.get("MONGODB_HOSTS")
        return cls(hosts.split(","), environ["MONGODB_REPLICA_SET"]) if hosts else cls()

    def uri(self, user: User) -> str:
        return _uri(user, ",".join(self.hosts), f"&replicaSet={self.replica_set}" if self.replica_set else "")

    def uri_of_first(self, user: User) -> str:
        return _uri(user, self.hosts[0], "&directConnection=true")


def desired_users(environ: Mapping[str, str]) -> list[User]:
    database = environ["MONGODB_DATABASE"]
    return [
        User("consumer", environ["MONGODB_CONSUMER_PASSWORD"], [{"role": "readWrite", "db": database}]),
        User(
            "exporter",
            environ["MONGODB_PASSWORD"],
            [
                {"role": "clusterMonitor", "db": "admin"},
                {"role": "read", "db": "local"},
                {"role": "read", "db": database},
            ],
        ),
    ]


def ensure(admin: Database[dict[str, Any]], user: User) -> None:
    """Create the user, or update its password and roles. Raises PyMongoError."""
    exists = admin.command("usersInfo", user.name)["users"]
    admin.command("updateUser" if exists else "createUser", user.name, pwd=user.password, roles=user.roles)


def initiate(admin: Database[dict[str, Any]], servers: Servers) -> None:
    """Make the servers a replica set, unless they are one. Raises PyMongoError."""
    try:
        admin.command("replSetGetStatus")
    except OperationFailure as error:
        if error.code != NOT_YET_INITIALIZED:
            raise
        members = [{"_id": number, "host": host} for number, host in enumerate(servers.hosts)]
        admin.command("replSetInitiate", {"_id": servers.replica_set, "members": members})


def write_secret(path: Path, text: str) -> None:
    """Replaces the file atomically, so a consumer that starts meanwhile reads the old or the new content."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(text, encoding="utf-8")
    draft.chmod(0o400)
    draft.replace(path)


def _uri(user: User, hosts: str, options: str) -> str:
    return f"mongodb://{quote_plus(user.name)}:{quote_plus(user.password)}@{hosts}/?authSource=admin{options}"


def describe(error: PyMongoError) -> str:
    if isinstance(error, OperationFailure) and error.code == AUTHENTICATION_FAILED:
        return (
            "MongoDB rejected the root password. It is set at the first start only; changing it in .env or secrets/ has"
            ' no effect afterwards. Restore the old password, or see "Rotating passwords" in docs/operations.md'
        )
    return f"cannot create or update the MongoDB users: {error}"


def main() -> int:
    root = User("root", os.environ["MONGO_INITDB_ROOT_PASSWORD"], [])
    users, servers = desired_users(os.environ), Servers.of(os.environ)
    try:
        if servers.replica_set:
            with MongoClient[dict[str, Any]](servers.uri_of_first(root), timeoutMS=TIMEOUT_MS) as client:
                initiate(client.admin, servers)
        with MongoClient[dict[str, Any]](servers.uri(root), timeoutMS=TIMEOUT_MS) as client:
            for user in users:
                ensure(client.admin, user)
                print(f"{user.name}: " + ", ".join(f"{role['role']} on {role['db']}" for role in user.roles))
    except PyMongoError as error:
        print(describe(error), file=sys.stderr)
        return 1
    write_secret(URI_FILE, servers.uri(users[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
