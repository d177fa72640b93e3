"""Tests that need containers are skipped with a reason where the Docker engine cannot provide them."""

from pathlib import Path

import pytest

from tests.docker_engine import image, require_images

NOT_FOUND = """\
#!/bin/sh
case "$1 $2" in
  "info ") exit 0 ;;
  "image inspect") exit 1 ;;
esac
echo "Using default tag" >&2
echo "Error response from daemon: no such host" >&2
exit 1
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only program that is found; to be written by the test."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    return tmp_path / "docker"


def write(program: Path, text: str) -> None:
    program.write_text(text)
    program.chmod(0o755)


def test_without_docker_a_test_is_skipped(docker: Path) -> None:
    with pytest.raises(pytest.skip.Exception, match="needs Kafka: no Docker engine is available"):
        require_images("Kafka", "KAFKA_IMAGE")


def test_with_an_engine_that_does_not_run_a_test_is_skipped(docker: Path) -> None:
    write(docker, "#!/bin/sh\nexit 1\n")

    with pytest.raises(pytest.skip.Exception, match="no Docker engine is available"):
        require_images("Kafka", "KAFKA_IMAGE")


def test_with_an_engine_that_cannot_pull_a_test_is_skipped_with_the_reason(docker: Path) -> None:
    write(docker, NOT_FOUND)

    with pytest.raises(pytest.skip.Exception) as skipped:
        require_images("Kafka", "KAFKA_IMAGE")

    assert str(skipped.value) == (
        f"needs Kafka: the Docker engine does not have {image('KAFKA_IMAGE')} and cannot pull it:"
        " Error response from daemon: no such host"
    )


def test_in_ci_a_test_whose_image_cannot_be_pulled_fails(docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(docker, NOT_FOUND)
    monkeypatch.setenv("CI", "true")

    with pytest.raises(pytest.fail.Exception, match="cannot pull it"):
        require_images("Kafka", "KAFKA_IMAGE")


def test_an_image_that_is_there_is_not_pulled(docker: Path) -> None:
    write(docker, '#!/bin/sh\n[ "$1" != pull ]\n')

    require_images("Kafka", "KAFKA_IMAGE")


def test_an_image_that_is_missing_is_pulled(docker: Path) -> None:
    write(docker, '#!/bin/sh\n[ "$1 $2" != "image inspect" ]\n')

    require_images("Kafka", "KAFKA_IMAGE", "RYUK_IMAGE")
