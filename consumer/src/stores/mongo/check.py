"""Checks whether MongoDB meets the consumer's requirements, for `--check`."""

import json
from collections.abc import Callable, Mapping, Set
from typing import Any

from pymongo.collection import Collection

from src.model.check_result import CheckResult
from src.model.errors import StorageUnavailable
from src.stores.mongo.client import is_weak
from src.stores.mongo.errors import translated_errors
from src.stores.mongo.indexes import Indexes


def check(collection: Collection[Any], indexes: Indexes, *, overwrites: bool = False) -> list[CheckResult]:
    """Stops at the first check that finds the server unavailable."""
    actions = {"insert", "update"} if overwrites else {"insert"}
    checks: dict[str, Callable[[], tuple[bool, str]]] = {
        "store reachable": lambda: _reachable(collection),
        "write permission": lambda: _write_permission(collection, actions),
        "indexes": lambda: _missing_indexes(indexes),
        "durability": lambda: _durability(collection),
    }
    results: list[CheckResult] = []
    for name, run in checks.items():
        try:
            results.append(CheckResult(name, *run()))
        except StorageUnavailable as error:
            failed = "authentication" if error.cause == "authentication" else name
            return [*results, CheckResult(failed, False, str(error))]
    return results


def _reachable(collection: Collection[Any]) -> tuple[bool, str]:
    with translated_errors():
        collection.database.command("ping")
        version = collection.database.client.server_info()["version"]
    return True, f"MongoDB {version}"


def _write_permission(collection: Collection[Any], actions: Set[str]) -> tuple[bool, str]:
    with translated_errors():
        status = collection.database.command("connectionStatus", showPrivileges=True)["authInfo"]
        collection.find_one({}, {"_id": 1})
    users = ", ".join(f"{user['user']}@{user['db']}" for user in status["authenticatedUsers"])
    if not users:
        return True, "the server does not require authentication"
    privileges = status["authenticatedUserPrivileges"]
    if not privileges:  # although the user can read
        return True, f"the server does not list the privileges of {users}"
    allowed = actions <= {action for each in privileges if _applies(each, collection) for action in each["actions"]}
    return allowed, f"{users} may {'' if allowed else 'not '}{' and '.join(sorted(actions))} in {collection.full_name}"


def _applies(privilege: Mapping[str, Any], collection: Collection[Any]) -> bool:
    resource = privilege["resource"]
    return bool(
        resource.get("anyResource")
        or (
            resource.get("db") in ("", collection.database.name) and resource.get("collection") in ("", collection.name)
        )
    )


def _missing_indexes(indexes: Indexes) -> tuple[bool, str]:
    missing = ", ".join(json.dumps(dict(keys)) for keys in indexes.missing())
    return True, f"created at start: {missing}" if missing else "all exist"


def _durability(collection: Collection[Any]) -> tuple[bool, str]:
    concern = collection.write_concern.document
    return True, f"write concern {concern}{' is weaker than the default' if is_weak(concern) else ''}"
