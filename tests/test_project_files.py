"""The files at the root agree with the scripts and with each other."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RECIPES = dict(re.findall(r"^([a-z]+): ## .*\n\t@(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def test_make_help_lists_every_target() -> None:
    recipe = RECIPES["help"].replace("$$", "$")
    listed = subprocess.run(recipe, shell=True, cwd=ROOT, text=True, capture_output=True, check=True).stdout

    assert [line.split()[1] for line in listed.splitlines()] == list(RECIPES)
    assert list(RECIPES) == ["help", "run", "check", "test", "chaos", "bench", "up", "down"]


@pytest.mark.parametrize("target", [name for name in RECIPES if name != "help"])
def test_a_make_target_runs_one_script_with_the_given_arguments(target: str) -> None:
    [script, arguments] = RECIPES[target].split()

    assert os.access(ROOT / script, os.X_OK)
    assert arguments == "$(ARGS)"


def test_ci_and_the_commit_hook_run_existing_scripts_with_options_that_they_accept() -> None:
    hook = (ROOT / ".pre-commit-config.yaml").read_text()
    commands = re.findall(r"(?:run:|entry:)(?: /bin/bash)? (?:\./)?(scripts/\S+)((?: --[a-z]+)*)", WORKFLOW + hook)

    assert len(commands) == 4
    for script, options in commands:
        text = (ROOT / script).read_text() + "".join(path.read_text() for path in (ROOT / "scripts/local").glob("*.py"))
        assert all(option in text for option in options.split())


def test_ci_pins_its_actions_and_may_only_read() -> None:
    actions = re.findall(r"uses: (\S+)(.*)", WORKFLOW)

    assert actions
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action) for action, _ in actions)
    assert all(re.fullmatch(r" # v\d+\.\d+\.\d+", version) for _, version in actions)
    assert re.findall(r"permissions:\n((?:  +.*\n)+)", WORKFLOW) == ["  contents: read\n"]


def test_renovate_finds_every_image_of_the_stack_and_every_lock_file() -> None:
    config = json.loads((ROOT / "renovate.json").read_text())
    [images] = config["customManagers"]
    pattern = images["matchStrings"][0].replace("(?<", "(?P<")
    lines = [line for line in (ROOT / ".env").read_text().splitlines() if "_IMAGE=" in line]
    [locks] = config["pip-compile"]["managerFilePatterns"]

    found = [re.search(pattern, line) for line in lines]

    assert lines
    assert [f"{match['depName']}:{match['currentValue']}" for match in found if match] == [
        line.partition("=")[2] for line in lines
    ]
    assert all(re.search(locks.strip("/"), f"{folder}requirements.lock") for folder in ("producer/", "scripts/local/"))
    assert re.search(locks.strip("/"), "requirements-dev.lock")


@pytest.mark.parametrize("service", ["producer", "consumer"])
def test_an_image_can_be_built_on_another_base_image(service: str) -> None:
    lines = (ROOT / service / "Dockerfile").read_text().splitlines()

    assert re.fullmatch(r"ARG PYTHON_IMAGE=python:3\.\d+-slim(@sha256:[0-9a-f]{64})?", lines[0])
    assert {line.partition(" AS ")[0] for line in lines if line.startswith("FROM ")} == {"FROM ${PYTHON_IMAGE}"}
