"""A MongoDB server for tests: TEST_MONGODB_URI if set, otherwise a container; without Docker the tests are skipped."""

import os
from collections.abc import Iterator
from uuid import uuid4

import pytest
from pymongo import MongoClient

from tests.docker_engine import image, require_containers


@pytest.fixture(scope="session")
def mongodb_uri() -> Iterator[str]:
    given = os.environ.get("TEST_MONGODB_URI", "")
    if given:
        yield given
        return
    require_containers("MongoDB, at TEST_MONGODB_URI or in a container", "MONGO_IMAGE")
    from testcontainers.community.mongodb import MongoDbContainer

    with MongoDbContainer(image("MONGO_IMAGE")) as container:
        yield container.get_connection_url()


@pytest.fixture
def mongodb_database(mongodb_uri: str) -> Iterator[str]:
    """The name of an empty database, which is dropped after the test."""
    name = f"test_storage_{uuid4().hex[:12]}"
    yield name
    with MongoClient[dict[str, object]](mongodb_uri) as client:
        client.drop_database(name)
