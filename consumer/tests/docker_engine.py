"""The Docker engine of tests. Without one, or without an image, a test is skipped, and says why."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TIMEOUT = 600.0  # seconds to pull an image

ENV_FILE = next(folder / ".env" for folder in Path(__file__).resolve().parents if (folder / ".env").is_file())


def image(variable: str) -> str:
    """The image that the Compose stack uses, from the file that pins it."""
    lines = ENV_FILE.read_text("utf-8").splitlines()
    return next(line.partition("=")[2].strip() for line in lines if line.startswith(f"{variable}="))


def require_images(needed_for: str, *variables: str) -> None:
    """Pulls images that are missing. Where CI is set, an image that cannot be pulled fails the test."""
    if shutil.which("docker") is None or _docker("info").returncode:
        pytest.skip(f"needs {needed_for}: no Docker engine is available")
    for name in map(image, variables):
        if _docker("image", "inspect", name).returncode and (pull := _docker("pull", "--quiet", name)).returncode:
            end = pytest.fail if os.environ.get("CI") else pytest.skip
            reason = pull.stderr.strip().rpartition("\n")[2]
            end(f"needs {needed_for}: the Docker engine does not have {name} and cannot pull it: {reason}")


def require_containers(needed_for: str, *variables: str) -> None:
    """The same for containers of testcontainers, which starts one more that removes them if the tests are killed."""
    from testcontainers.core.config import testcontainers_config

    testcontainers_config.ryuk_image = image("RYUK_IMAGE")
    require_images(needed_for, *variables, *(() if testcontainers_config.ryuk_disabled else ("RYUK_IMAGE",)))


def _docker(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Uses the command, because the Python client leaves its socket open if the engine is unresponsive."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=TIMEOUT)
