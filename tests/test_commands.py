"""What the commands have in common: help texts, versions, and output that cannot be written."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka import Producer

from local.broker import EmbeddedBroker
from local.output import FAILED, INTERRUPTED, OUTPUT_CLOSED
from tests.test_docs import ROOT, rows

SERVICES = ("producer", "consumer")
SCRIPTS = ("local", "chaos", "fuzz")
PROGRAMS = [
    ("producer", "src.producer"),
    ("producer", "src.undelivered"),
    ("producer", "src.status"),
    ("consumer", "src.consumer"),
    ("consumer", "src.dead_letters"),
    ("consumer", "src.audit"),
    ("consumer", "src.get"),
    ("consumer", "src.status"),
    *(("scripts", name) for name in SCRIPTS),
]
TIMEOUT = 60


class Command(NamedTuple):
    """A command line, and the folder that it runs in."""

    folder: str
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.arguments[0]}.sh" if self.folder == "scripts" else self.arguments[0].removeprefix("src.")


REPORTS = [
    Command("producer", ("src.producer", "--check")),
    Command("producer", ("src.producer", "--input", "-")),
    Command("producer", ("src.undelivered", "list")),
    Command("producer", ("src.undelivered", "resend")),
    Command("consumer", ("src.consumer", "--check")),
    Command("consumer", ("src.dead_letters", "list")),
    Command("consumer", ("src.dead_letters", "show", "0:7")),
    Command("consumer", ("src.audit",)),
    Command("consumer", ("src.get",)),
    Command("scripts", ("chaos", "--list")),
]
commands = pytest.mark.parametrize("command", REPORTS, ids=lambda command: " ".join(command.arguments))
programs = pytest.mark.parametrize(("folder", "module"), PROGRAMS, ids=lambda value: str(value))


class World:
    """A broker with a topic and a dead letter, a store with a message, and an undelivered message."""

    def __init__(self, broker: EmbeddedBroker, folder: Path) -> None:
        undelivered = folder / "undelivered"
        undelivered.mkdir()
        record = {"given_up_at": "2023-07-15T12:34:56.789Z", "reason": "no leader", "topic": "data-topic"}
        line = json.dumps({**record, "key": "a", "value": "{}", "headers": []})
        (undelivered / "dead-1.jsonl").write_text(f"{line}\n")
        headers = {"topic": "data-topic", "partition": "0", "offset": "7"}
        producer = Producer({"bootstrap.servers": broker.address})
        producer.produce("data-topic", "{}", partition=0)
        producer.produce(
            "data-topic.dlq",
            "{",
            headers=[(f"__connect.errors.{name}", text) for name, text in headers.items()],
            timestamp=1_689_424_496_789,
        )
        producer.flush()
        self._environ = {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": broker.address,
            "MONGODB_URI": f"sqlite:///{folder}/store.db",
            "PRODUCER_UNDELIVERED_DIR": str(undelivered),
            "METRICS_PORT": "0",
            "TZ": "Asia/Kathmandu",
            "COLUMNS": "100",
        }
        store = "from src.storage import DataStorage; import sys; DataStorage({'uri': sys.argv[1]}).save({'id': 'a'})"
        subprocess.run(
            [sys.executable, "-c", store, self._environ["MONGODB_URI"]],
            cwd=ROOT / "consumer",
            check=True,
            timeout=TIMEOUT,
        )

    def line(self, command: Command) -> list[str]:
        return [sys.executable, "-m", *command.arguments]

    def environ(self, command: Command) -> Mapping[str, str]:
        return {**self._environ, "PYTHONPATH": str(ROOT / "scripts")} if command.folder == "scripts" else self._environ

    def run(self, command: Command, shell: str = '"$@"') -> tuple[int, str, str]:
        """Exit code, output and errors of a command in a shell."""
        done = subprocess.run(
            ["bash", "-c", shell, "bash", *self.line(command)],
            cwd=ROOT / command.folder,
            env=self.environ(command),
            input="",
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def on_terminal(self, command: Command) -> str:
        terminal, stdout = pty.openpty()
        with subprocess.Popen(
            self.line(command),
            cwd=ROOT / command.folder,
            env=self.environ(command),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
        ) as process:
            os.close(stdout)
            output = b""
            try:
                while part := os.read(terminal, 65536):
                    output += part
            except OSError:  # the other end is closed
                pass
            process.communicate(timeout=TIMEOUT)
        os.close(terminal)
        return output.decode()


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker({"data-topic": 1, "data-topic.dlq": 1}) as broker:
        yield broker


@pytest.fixture
def world(broker: EmbeddedBroker, tmp_path: Path) -> World:
    return World(broker, tmp_path)


@commands
def test_a_full_disk_is_one_sentence_and_exit_code_1(world: World, command: Command) -> None:
    code, _, error = world.run(command, '"$@" > /dev/full')

    lines = [line for line in error.splitlines() if "cannot write to standard output" in line]
    assert lines == [f"{command.name}: cannot write to standard output: No space left on device"]
    assert code == 1
    assert "Traceback" not in error
    assert "Logging error" not in error


@commands
def test_a_reader_that_is_gone_is_silent_and_exit_code_141(world: World, command: Command) -> None:
    code, _, error = world.run(command, 'exec 3> >(:); wait $!; "$@" >&3')

    assert code == 141
    assert "standard output" not in error
    assert "Traceback" not in error
    assert "rror" not in error


@commands
def test_closed_output_is_one_sentence(world: World, command: Command) -> None:
    code, _, error = world.run(command, '"$@" >&-')

    assert code == 1
    assert f"{command.name}: cannot write to standard output: Bad file descriptor\n" in error
    assert "Traceback" not in error


@commands
def test_closed_errors_are_no_error_and_are_not_in_the_output(world: World, command: Command) -> None:
    code, output, _ = world.run(command, '"$@" 2>&-')

    assert code == 0
    assert output
    assert f"{command.name}: " not in output


@programs
def test_help_that_cannot_be_written_is_an_error(world: World, folder: str, module: str) -> None:
    command = Command(folder, (module, "--help"))

    code, _, error = world.run(command, '"$@" > /dev/full')

    assert (code, error) == (1, f"{command.name}: cannot write to standard output: No space left on device\n")


@programs
def test_help_has_the_same_layout_everywhere(world: World, folder: str, module: str) -> None:
    code, help_text, _ = world.run(Command(folder, (module, "--help")))

    headings = re.findall(r"^(\w[\w ]*):", help_text, re.MULTILINE)
    program = f"python -m {module}" if folder in SERVICES else f"scripts/{module}.sh"
    assert code == 0
    assert (headings[0], headings[-2:]) == ("usage", ["examples", "exit codes"])
    assert f"\nexamples:\n  {program}" in help_text
    assert "--version " in help_text
    assert re.match(r"\s+0 [^;]+; 1 [^;]+; 2 [^;]+$", help_text.partition("\nexit codes:\n")[2])


@programs
def test_the_version_is_that_of_the_services(world: World, folder: str, module: str) -> None:
    version = re.search(r'^VERSION = "(.+)"$', (ROOT / "consumer/src/settings.py").read_text(), re.MULTILINE)
    command = Command(folder, (module, "--version"))

    assert version
    assert world.run(command) == (0, f"{command.name} {version[1]}\n", "")


@pytest.mark.parametrize(
    ("command", "utc", "local"),
    [
        (REPORTS[2], "2023-07-15T12:34:56.789Z", "2023-07-15T18:19:56.789+05:45"),
        (REPORTS[5], "2023-07-15T12:34:56.789Z", "2023-07-15T18:19:56.789+05:45"),
    ],
    ids=["undelivered", "dead_letters"],
)
def test_times_are_local_on_a_terminal_and_in_utc_otherwise(
    world: World, command: Command, utc: str, local: str
) -> None:
    assert utc in world.run(command)[1]

    assert local in world.on_terminal(command)


def test_get_prints_one_message_per_line_for_programs(world: World) -> None:
    command = Command("consumer", ("src.get", "--json"))

    assert json.loads(world.run(REPORTS[8])[1])["id"] == "a"
    assert json.loads(world.on_terminal(command))["id"] == "a"
    assert world.on_terminal(REPORTS[8]).startswith("{\r\n")


def test_the_exit_codes_of_all_commands_are_in_one_table() -> None:
    table = rows(ROOT / "docs" / "configuration.md", "Exit codes")

    assert [int(row[0]) for row in table] == [0, FAILED, 2, INTERRUPTED, OUTPUT_CLOSED]
