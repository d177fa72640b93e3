"""Static checks of compose.services.yml, which runs the services on servers elsewhere; no Docker needed."""

import json
import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests.test_docs import ROOT, settings_of

Json = dict[str, Any]

STACK: Json = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: Json = yaml.safe_load((ROOT / "compose.services.yml").read_text("utf-8"))
WARNINGS = """
import json, sys
from src.settings import VARIABLES
from src.utils.secret import ClientSettings
from src.utils.settings_check import warnings_about
print(json.dumps(warnings_about(VARIABLES, ClientSettings(), dict.fromkeys(sys.argv[1:], "x"))))
"""
OWN = {"depends_on", "environment", "env_file", "profiles", "volumes"}
"""What differs from the stack: where the servers and settings are."""


@pytest.mark.parametrize("service", ["producer", "consumer"])
def test_a_service_runs_as_in_the_stack(service: str) -> None:
    def common(file: Json) -> Json:
        return {key: value for key, value in file["services"][service].items() if key not in OWN}

    assert common(SERVICES) == common(STACK)


@pytest.mark.parametrize("service", ["producer", "consumer"])
def test_a_service_gets_exactly_what_the_user_has_written(service: str) -> None:
    definition = SERVICES["services"][service]

    assert "environment" not in definition
    assert definition["env_file"] == [
        "secrets/services.env",
        {"path": f"secrets/services.{service}.env", "required": False},
    ]
    assert "./secrets/services:/run/secrets:ro" in definition["volumes"]


def test_only_the_consumer_starts_without_a_profile() -> None:
    assert [name for name, service in SERVICES["services"].items() if "profiles" not in service] == ["consumer"]


def test_the_volumes_of_the_services_keep_what_those_of_the_stack_keep() -> None:
    for service in ("producer", "consumer"):
        ours, theirs = ({*file["services"][service]["volumes"]} for file in (SERVICES, STACK))
        assert ours - {"./secrets/services:/run/secrets:ro"} == {
            volume for volume in theirs if not volume.startswith(("credentials:", "logs:"))
        }


def test_every_extended_service_has_no_dependencies_which_compose_versions_treat_differently() -> None:
    extended = [service["extends"] for service in SERVICES["services"].values() if "extends" in service]

    assert [each["file"] for each in extended] == ["docker-compose.yml"] * 3
    assert [each for each in extended if "depends_on" in STACK["services"][each["service"]]] == []


def test_every_volume_is_declared() -> None:
    definitions = [
        STACK["services"][name] if "extends" in service else service for name, service in SERVICES["services"].items()
    ]
    mounts = [volume.partition(":")[0] for service in definitions for volume in service["volumes"]]

    assert {name for name in mounts if not name.startswith(".")} == set(SERVICES["volumes"])


def test_prometheus_runs_as_in_the_stack_but_scrapes_only_the_services_and_itself() -> None:
    folder = ROOT / "monitoring" / "prometheus"
    ours, theirs = (
        yaml.safe_load((folder / name).read_text("utf-8")) for name in ("prometheus-services.yml", "prometheus.yml")
    )
    commands = [file["services"]["prometheus"]["command"] for file in (SERVICES, STACK)]

    assert commands[0] == [each.replace("prometheus.yml", "prometheus-services.yml") for each in commands[1]]
    assert ours.pop("scrape_config_files") == ["scrape-services.yml"]
    assert ours == {key: value for key, value in theirs.items() if not key.startswith("scrape_config")}


@pytest.mark.parametrize("name", ["services.env", "services.consumer.env", "services/ca.pem"])
def test_git_ignores_the_settings_and_secrets(name: str) -> None:
    assert subprocess.run(["git", "check-ignore", "-q", f"secrets/{name}"], cwd=ROOT).returncode == 0


@pytest.mark.parametrize(("service", "other"), [("producer", "consumer"), ("consumer", "producer")])
def test_no_service_warns_of_a_variable_of_the_other(service: str, other: str) -> None:
    described = settings_of(other)
    names = [name for setting in described["settings"].values() for name in setting["variables"]] + [
        *described["client"]
    ]
    command = [sys.executable, "-c", WARNINGS, *names]

    printed = subprocess.run(command, cwd=ROOT / service, check=True, text=True, capture_output=True).stdout

    assert len(names) > 20
    assert json.loads(printed) == []
