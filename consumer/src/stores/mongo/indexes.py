"""The indexes of the collection, including an optional TTL index, which deletes old documents."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pymongo.collection import Collection
from pymongo.errors import NetworkTimeout, OperationFailure, PyMongoError

from src.stores.mongo.errors import translated_errors, unavailable

logger = logging.getLogger(__name__)

Keys = tuple[tuple[str, int], ...]

INDEXES: tuple[Keys, ...] = (
    (("created_at", 1),),
    (("name", 1),),
    (("metadata.source", 1), ("created_at", 1)),
)
TTL_INDEX: Keys = (("kafka.received_at", 1),)  # not created_at: a late message would be deleted on arrival

DELETIONS_INDEX: Keys = (("kafka.deleted_at", 1),)

SECONDS_PER_DAY = 86_400

PASSING = frozenset({"interrupted", "moving", "not_primary", "shard_unavailable", "unreachable", "write_concern"})
"""Causes that an administrator need not remove."""


class Indexes:
    """Creates what is missing. An operator's own indexes are left as they are."""

    def __init__(self, collection: Collection[Any], ttl_days: float | None, *, deletes: bool = False) -> None:
        self._collection = collection
        self._deletes = deletes
        self._ttl = None if ttl_days is None else max(1, round(ttl_days * SECONDS_PER_DAY))

    def ensure(self) -> None:
        """Raises StorageUnavailable; an index that cannot be created is a warning."""
        existing = self._existing()
        for keys in self._missing(existing):
            self._create(keys)
        self._ensure_ttl(existing)
        if self._deletes and DELETIONS_INDEX not in existing:
            self._create(DELETIONS_INDEX, expireAfterSeconds=SECONDS_PER_DAY)

    def missing(self) -> list[Keys]:
        """Raises StorageUnavailable."""
        return self._missing(self._existing())

    def ttl_seconds(self) -> float | None:
        """Of all TTL indexes for documents, an operator's own included. Raises StorageUnavailable."""
        options = [index for keys, index in self._existing().items() if keys != DELETIONS_INDEX]
        return min((index["expireAfterSeconds"] for index in options if "expireAfterSeconds" in index), default=None)

    def _existing(self) -> dict[Keys, Mapping[str, Any]]:
        with translated_errors():
            return {tuple(index["key"]): index for index in self._collection.index_information().values()}

    def _missing(self, existing: Mapping[Keys, Mapping[str, Any]]) -> list[Keys]:
        return [keys for keys in INDEXES if keys not in existing]

    def _create(self, keys: Keys, **options: Any) -> None:
        with self._warning_with_command("createIndex", dict(keys), options):
            self._collection.create_index(list(keys), **options)

    def _ensure_ttl(self, existing: Mapping[Keys, Mapping[str, Any]]) -> None:
        """Create or change the TTL index as configured; one that is no longer configured stays until dropped."""
        found = existing.get(TTL_INDEX, {}).get("expireAfterSeconds")
        if self._ttl is None and found is not None:
            logger.warning(
                "TTL index still deletes documents",
                extra={"after_seconds": found, "fix_command": self._shell_command("dropIndex", dict(TTL_INDEX))},
            )
        elif self._ttl is not None and TTL_INDEX not in existing:
            self._create(TTL_INDEX, expireAfterSeconds=self._ttl)
        elif self._ttl is not None and self._ttl != found:
            self._change_ttl(self._ttl)

    def _change_ttl(self, seconds: int) -> None:
        change = {"keyPattern": dict(TTL_INDEX), "expireAfterSeconds": seconds}
        command = {"collMod": self._collection.name, "index": change}
        with self._warning_with_command("runCommand", command):
            self._collection.database.command(command)
            if self._existing()[TTL_INDEX].get("expireAfterSeconds") != seconds:
                raise OperationFailure("the server reported success, but the TTL has not changed")
            logger.info("TTL changed", extra={"after_seconds": seconds})

    @contextmanager
    def _warning_with_command(self, command: str, *arguments: Mapping[str, Any]) -> Iterator[None]:
        """Messages are stored without the index, too: warn with the command for an administrator, and continue."""
        try:
            yield
        except (OperationFailure, NetworkTimeout) as error:
            if (failure := unavailable(error)).cause in PASSING:
                raise failure from error
            fix = self._shell_command(command, *arguments)
            logger.warning("cannot create or update index", extra={"reason": str(error), "fix_command": fix})
        except PyMongoError as error:
            raise unavailable(error) from error

    def _shell_command(self, command: str, *arguments: Mapping[str, Any]) -> str:
        """For mongosh."""
        database = f"db.getSiblingDB({json.dumps(self._collection.database.name)})"
        target = "" if command == "runCommand" else f".getCollection({json.dumps(self._collection.name)})"
        return f"{database}{target}.{command}({', '.join(json.dumps(each) for each in arguments if each)})"
