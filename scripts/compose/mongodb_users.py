"""Makes MongoDB's users, each with the rights it needs, in the one-shot `mongodb-users`.

It runs at every `up`, so a password changed in .env or secrets/ is the user's from then on. The consumer's goes, as
part of its URI, into a file that only the services' uid can read.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote_plus

from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError

HOST = "mongodb:27017"
URI_FILE = Path("/app/credentials/mongodb-uri")
TIMEOUT_MS = 30_000
REFUSED = 18  # AuthenticationFailed


class User(NamedTuple):
    name: str
    password: str
    roles: list[dict[str, str]]


def wanted(environ: Mapping[str, str]) -> list[User]:
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
    """Give the user this password and these rights, and make it if it is not there. Raises PyMongoError."""
    there = admin.command("usersInfo", user.name)["users"]
    admin.command("updateUser" if there else "createUser", user.name, pwd=user.password, roles=user.roles)


def uri(user: User) -> str:
    return f"mongodb://{quote_plus(user.name)}:{quote_plus(user.password)}@{HOST}/?authSource=admin"


def write_secret(path: Path, text: str) -> None:
    """In one step, so that a consumer that starts meanwhile reads the old one or the new one."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(text, encoding="utf-8")
    draft.chmod(0o400)
    draft.replace(path)


def explained(error: PyMongoError) -> str:
    if isinstance(error, OperationFailure) and error.code == REFUSED:
        return (
            "MongoDB refuses root's password. It was set at the first start, and a later change in .env or secrets/"
            " does not reach it: put the old one back, or see docs/operations.md, Rotating passwords"
        )
    return f"MongoDB's users could not be made: {error}"


def main() -> int:
    root = User("root", os.environ["MONGO_INITDB_ROOT_PASSWORD"], [])
    users = wanted(os.environ)
    try:
        with MongoClient[dict[str, Any]](uri(root), timeoutMS=TIMEOUT_MS) as client:
            for user in users:
                ensure(client.admin, user)
                print(f"{user.name}: " + ", ".join(f"{role['role']} on {role['db']}" for role in user.roles))
    except PyMongoError as error:
        print(explained(error), file=sys.stderr)
        return 1
    write_secret(URI_FILE, uri(users[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
