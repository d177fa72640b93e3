"""A MongoDB server for tests: TEST_MONGODB_URI if set, otherwise a container; without Docker the tests are skipped."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from pymongo import MongoClient

ENV_FILE = Path(__file__).resolve().parent.parent.parent / ".env"


@pytest.fixture(scope="session")
def mongodb_uri() -> Iterator[str]:
    given = os.environ.get("TEST_MONGODB_URI", "")
    if given:
        yield given
        return
    if not docker_is_available():
        pytest.skip("needs MongoDB: set TEST_MONGODB_URI, or start a Docker engine")
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


def docker_is_available() -> bool:
    """Uses the command, because the Python client leaves its socket open if the engine is unresponsive."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=60).returncode == 0


def image(variable: str) -> str:
    """The image that the Compose stack uses, from the file that pins it."""
    lines = ENV_FILE.read_text().splitlines()
    return next(line.partition("=")[2].strip() for line in lines if line.startswith(f"{variable}="))
