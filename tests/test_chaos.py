"""The chaos suite's own parts: options, expectations, verdicts, and that it can fail."""

import json
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pymongo.errors import PyMongoError

from chaos import faults, scenarios, verdict
from chaos.__main__ import main
from chaos.clusters import PAUSE_ATTEMPTS, broker_commands, commands, pause
from chaos.load import Load, mixed, plain, rejected_by_store, two_versions
from chaos.measurements import Growth, OffsetHistory
from chaos.options import Options, parse, selected
from chaos.plan import environment, unprotected
from chaos.report import ERROR, FAILED, PASSED, SKIPPED, Row, line, summary, write
from chaos.scenarios.scenario import Scenario
from chaos.servers import REQUIREMENTS, Cluster, Server
from chaos.suite import status
from chaos.suite import verdict as verdict_of
from chaos.verdict import Counts, Exit, Expectation
from local.connectivity import Address
from local.errors import CannotRun
from local.offsets import Progress
from local.plan import ALLOCATOR

NAMES = ["consumer-killed", "consumer-stopped", "kafka-killed"]
COMMANDS = ("--on", "commands", "--kafka", "h:1", "--mongodb", "mongodb://h")


def parsed(*arguments: str) -> Options:
    return parse(arguments, NAMES, ["deduplication", "commit-on-revoke"])


# -- options


def test_the_defaults_need_no_servers_and_run_each_scenario_once() -> None:
    options = parsed()

    assert (options.on, options.seeds, selected(options, NAMES)) == ("embedded", (1,), NAMES)


def test_scenarios_are_selected_by_name_prefix_or_pattern_in_their_own_order() -> None:
    assert selected(parsed("--only", "kafka-killed", "--only", "consumer-stopped"), NAMES) == NAMES[1:]
    assert selected(parsed("--only", "consumer"), NAMES) == NAMES[:2]
    assert selected(parsed("--only", "*-killed"), NAMES) == ["consumer-killed", "kafka-killed"]


def test_seeds_count_up_from_the_first() -> None:
    assert parsed("--seed", "7", "--seeds", "3").seeds == (7, 8, 9)


def test_a_command_belongs_to_a_server_and_an_action() -> None:
    options = parsed(*COMMANDS, "--kafka-kill", "k", "--kafka-start", "s")

    assert options.commands == {("kafka", "kill"): "k", ("kafka", "start"): "s"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "nobody"], "no such scenario"),
        (["--without", "luck"], "no such protection"),
        (["--without", "deduplication", "--prove"], "cannot be combined with --without"),
        (["--on", "commands"], "requires --kafka HOST:PORT and --mongodb URI"),
        (["--kafka", "h:1"], "not --on embedded"),
        ([*COMMANDS, "--mongodb-kill", "k"], "--mongodb-kill requires --mongodb-start"),
        ([*COMMANDS, "--kafka-pause", "k"], "--kafka-pause requires --kafka-resume"),
        (["--messages", "1999"], "at least 2000"),
        (["--seeds", "0"], "is not a positive integer"),
        (["--report", "results.txt"], "neither a .md nor a .json file"),
        (["--report", "/nowhere/results.md"], "there is no folder"),
        (["--on", "paper"], "invalid choice"),
    ],
)
def test_an_invalid_option_is_an_error_message(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(*arguments)

    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_suite_that_cannot_start_is_an_error_message_and_exit_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    def run(_options: Options, _scenarios: object) -> int:
        raise CannotRun("no Kafka there")

    assert main([], run=run) == 2
    assert capsys.readouterr().err == "chaos.sh: no Kafka there\n"


def test_a_closed_terminal_interrupts_a_suite_once_so_that_it_can_clean_up(capsys: pytest.CaptureFixture[str]) -> None:
    cleaned_up = []

    def run(_options: Options, _scenarios: object) -> int:
        try:
            signal.raise_signal(signal.SIGHUP)
        finally:
            signal.raise_signal(signal.SIGHUP)
            cleaned_up.append(True)
        return 0

    before = signal.getsignal(signal.SIGHUP)

    assert (main([], run=run), cleaned_up) == (130, [True])
    assert capsys.readouterr().err == "Interrupted.\n"
    assert signal.getsignal(signal.SIGHUP) is before


def test_the_list_describes_each_scenario_and_the_protections_it_tests(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--list", "--only", "consumer-frozen"])

    assert status == 0
    assert capsys.readouterr().out == (
        "consumer-frozen\n"
        "  A consumer is frozen for longer than its session timeout, and then continues.\n"
        "  protections: assignment-numbers\n"
    )


@pytest.mark.parametrize("scenario", scenarios.ALL, ids=lambda scenario: scenario.name)
def test_every_scenario_has_a_description_protections_and_known_requirements(scenario: Scenario) -> None:
    assert scenario.description.endswith(".")
    assert scenario.protections
    assert set(scenario.requires) <= REQUIREMENTS.keys()


# -- the load


MIXES: list[Callable[[int, Random], Load]] = [
    plain,
    two_versions,
    rejected_by_store,
    lambda count, random: mixed(count, random, invalid=0.5),
]


@pytest.mark.parametrize("make", MIXES)
def test_each_message_is_valid_or_invalid_as_the_seed_determines(make: Callable[[int, Random], Load]) -> None:
    load = make(200, Random(1))

    ids = [json.loads(line)["id"] for line in load.lines]
    assert len(set(ids)) == 200
    assert load.valid | load.invalid == set(ids)
    assert not load.valid & load.invalid
    assert load == make(200, Random(1)) != make(200, Random(2))


def test_a_message_that_is_sent_twice_counts_once() -> None:
    load = mixed(100, Random(1), invalid=0.5)

    assert (load + load).size == 200
    assert ((load + load).valid, (load + load).invalid) == (load.valid, load.invalid)
    assert len((load + plain(10, Random(2))).valid) == 60


def test_what_a_producer_accepted_is_the_beginning_of_its_load() -> None:
    load = mixed(100, Random(1), invalid=0.5)

    first = load.first(10)

    assert first.lines == load.lines[:10]
    assert len(first.valid) + len(first.invalid) == 10


# -- the verdict


LOAD = mixed(100, Random(1), invalid=0.1)
PASSING: dict[str, Any] = {
    "produced": 100,
    "stored": 90,
    "duplicates": 0,
    "dead_lettered": 10,
    "pending": 0,
    "lost": 0,
    "twice": 0,
    "repeated": 0,
}


def failures(
    audit: Mapping[str, int] | None = None,
    *,
    repeats_allowed: bool = False,
    exits: Sequence[Exit] = (),
    failed: Sequence[str] = (),
) -> list[str]:
    counts = verdict.count({**PASSING, **(audit or {})}, LOAD)
    return verdict.failures(counts, Expectation(LOAD, repeats_allowed), exits, failed)


def test_a_trial_with_the_expected_counts_passes() -> None:
    assert failures() == []


@pytest.mark.parametrize(
    ("audit", "failure"),
    [
        ({"lost": 2}, "2 lost"),
        ({"stored": 87}, "3 lost"),  # accepted, and not even in the topic
        ({"twice": 1}, "1 twice"),
        ({"stored": 91}, "1 twice"),  # more documents than messages
        ({"pending": 4}, "4 not settled"),
        ({"dead_lettered": 12}, "12 dead-lettered instead of 10"),
        ({"dead_lettered": 9}, "1 lost"),
        ({"repeated": 1}, "1 dead letters repeated without a crash"),
        ({"produced": 102, "dead_lettered": 13}, "13 dead-lettered instead of 10"),
        ({"produced": 102, "stored": 89, "dead_lettered": 11}, "1 lost"),
    ],
)
def test_unexpected_counts_fail_the_trial(audit: dict[str, int], failure: str) -> None:
    assert failure in failures(audit)


def test_a_valid_message_that_is_dead_lettered_is_a_failure_but_not_lost() -> None:
    assert failures({"stored": 85, "dead_lettered": 15}) == ["15 dead-lettered instead of 10"]


def test_a_pending_message_is_not_lost() -> None:
    assert failures({"stored": 80, "pending": 10}) == ["10 not settled"]


def test_a_crash_explains_a_repeated_dead_letter() -> None:
    assert failures({"repeated": 3}, repeats_allowed=True) == []


def test_an_invalid_message_that_was_resent_may_be_dead_lettered_twice() -> None:
    assert failures({"produced": 103, "duplicates": 2, "dead_lettered": 11}) == []


def test_an_unexpected_exit_code_fails_the_trial() -> None:
    exits = (Exit("consumer-1", 0, frozenset({0})), Exit("consumer-2", 1, frozenset({0, -9})))

    assert failures(exits=exits) == ["consumer-2 exited with 1"]


def test_an_unmet_expectation_fails_the_trial() -> None:
    assert failures(failed=("/ready said nothing",)) == ["/ready said nothing"]


def test_the_counts_of_an_audit() -> None:
    assert verdict.count(PASSING, LOAD) == Counts(
        lost=0, twice=0, stored=90, dead_lettered=10, repeated=0, pending=0, resent=0
    )


# -- the measurements


def history(*observations: tuple[float, int, int], recreated: bool = False) -> OffsetHistory:
    """Of one partition: time, committed offset, end offset."""
    found = OffsetHistory(recreated=recreated)
    for time, committed, end in observations:
        found.add(time, Progress(end={0: end}, committed={0: committed}))
    return found


def test_a_pause_is_a_time_with_unread_messages_and_no_commit() -> None:
    assert history((0, 0, 5), (1, 5, 5), (9, 5, 5), (10, 5, 9), (13, 5, 12), (14, 12, 12)).longest_pause == 4


def test_a_pause_of_one_partition_is_measured_while_another_makes_progress() -> None:
    found = OffsetHistory()
    for time in range(5):
        found.add(time, Progress(end={0: 9, 1: 9}, committed={0: time, 1: 2}))

    assert found.longest_pause == 4


def test_progress_after_a_fault_is_that_of_the_slowest_partition() -> None:
    found = OffsetHistory()
    for time, first, second in ((0, 1, 1), (1, 1, 1), (2, 3, 1), (4, 3, 3)):
        found.add(time, Progress(end={0: 9, 1: 9}, committed={0: first, 1: second}))

    assert found.progress_after(1.0) == 3
    assert found.progress_after(4.0) is None


def test_a_decreasing_committed_offset_is_reported_unless_the_topic_was_recreated() -> None:
    observations = ((0, 5, 9), (1, 3, 9))

    assert history(*observations).decreases == ["the committed offset of partition 0 decreased from 5 to 3"]
    assert history(*observations, recreated=True).decreases == []


def test_the_last_observation_is_the_progress() -> None:
    found = history((0, 3, 9), (1, 5, 9))

    assert found.settled == 5
    assert found.progress.lag == 4


# -- the report


PASS_ROW = Row("kafka-killed", 1, PASSED, messages=4000, progress_seconds=1.25, exits="0 0")
FAIL_ROW = Row("kafka-killed", 2, FAILED, messages=4000, lost=3, notes=("3 lost",))
ERROR_ROW = Row("kafka-killed", 3, ERROR, notes=("Kafka does not respond",))
SKIPPED_ROW = Row("mongodb-slow", 1, SKIPPED, notes=("no MongoDB",))


def test_a_failed_row_fails_the_run_and_a_skipped_one_does_not() -> None:
    assert status([PASS_ROW, SKIPPED_ROW], prove=False) == 0
    assert status([PASS_ROW, FAIL_ROW], prove=False) == 1


def test_without_the_protections_a_row_that_passes_fails_the_run() -> None:
    assert status([FAIL_ROW, SKIPPED_ROW], prove=True) == 0
    assert status([FAIL_ROW, PASS_ROW], prove=True) == 1


def test_a_trial_with_an_error_never_counts_as_passed() -> None:
    assert status([ERROR_ROW], prove=False) == 1
    assert status([ERROR_ROW], prove=True) == 1
    assert summary([PASS_ROW, ERROR_ROW]) == ("FAIL: 1 passed, 0 failed, 1 with errors, 0 skipped; 0 lost, 0 twice.")


def test_prove_passes_only_if_every_row_fails() -> None:
    assert summary([FAIL_ROW], prove=True).startswith("PROVED: 0 passed, 1 failed")
    assert summary([FAIL_ROW, PASS_ROW], prove=True).startswith("NOT PROVED: ")
    assert summary([FAIL_ROW, ERROR_ROW], prove=True).startswith("NOT PROVED: ")


def test_if_everything_was_skipped_nothing_has_passed() -> None:
    assert status([SKIPPED_ROW], prove=False) == 2
    assert status([SKIPPED_ROW], prove=True) == 2
    assert summary([SKIPPED_ROW]) == "NOTHING RUN: 0 passed, 0 failed, 1 skipped."


def test_a_skipped_row_never_counts_as_passed() -> None:
    assert summary([PASS_ROW, SKIPPED_ROW]) == "PASS: 1 passed, 0 failed, 1 skipped; 0 lost, 0 twice."
    assert line(SKIPPED_ROW) == "skipped  mongodb-slow 1: no MongoDB"


def test_a_report_in_markdown_has_a_line_per_row(tmp_path: Path) -> None:
    path = tmp_path / "results.md"

    write([PASS_ROW, FAIL_ROW, SKIPPED_ROW], path, "Today, here.")

    lines = path.read_text().splitlines()
    assert lines[0] == "Today, here."
    assert lines[4] == "| kafka-killed | 1 | 4,000 | 0 | 0 | 0 | 0 | 1.2 s | 0 | - | 0 0 | pass |  |"
    assert lines[-1] == "FAIL: 1 passed, 1 failed, 1 skipped; 3 lost, 0 twice."
    assert len({line.count("|") for line in lines[2:-2]}) == 1


def test_a_report_in_json_has_every_number(tmp_path: Path) -> None:
    path = tmp_path / "results.json"

    write([FAIL_ROW], path, "Today, here.")

    report = json.loads(path.read_text())
    assert report["run"] == "Today, here."
    assert (report["rows"][0]["lost"], report["rows"][0]["verdict"]) == (3, FAILED)


# -- the processes


def test_no_setting_of_the_callers_shell_affects_a_trial() -> None:
    inherited = {"PATH": "/bin", "KAFKA_TOPIC": "mine", "CONSUMER_DEAD_LETTER_STORM_PERCENT": "1", "LOG_DIR": "/logs"}

    given = environment(inherited)

    assert given.keys() == {*ALLOCATOR, "PATH", "PYTHONPATH"}


def test_a_setting_removes_a_protection_and_the_others_stay() -> None:
    settings = {"consumer": {"batch_size": 100, "on_offset_gap": "stop"}, "mongodb": {"uri": "mongodb://h"}}

    given = unprotected(settings, ["stop-on-offset-gap", "deduplication"])

    assert given == {"consumer": {"batch_size": 100, "on_offset_gap": "earliest"}, "mongodb": {"uri": "mongodb://h"}}


# -- the servers


def test_an_unsupported_requirement_has_a_reason() -> None:
    kafka = Server("Kafka", {"kill": lambda: None}, lambda: None)
    cluster = Cluster("h:1", kafka, None, Server("SQLite", {}, lambda: None))

    assert cluster.missing("kafka.kill") is None
    assert cluster.missing("kafka.pause") == "no command to pause Kafka"
    assert cluster.missing("mongodb") == "requires MongoDB, not SQLite"


def test_one_of_three_brokers_is_needed_and_a_command_for_it() -> None:
    kafka, sqlite = Server("Kafka", {}, lambda: None), Server("SQLite", {}, lambda: None)
    broker = Server("broker", {"kill": lambda: None}, lambda: None)

    assert Cluster("h:1", kafka, None, sqlite, brokers=[broker] * 2).missing("broker.kill") == "requires three brokers"
    cluster = Cluster("h:1", kafka, None, sqlite, brokers=[broker] * 3)
    assert cluster.missing("broker.kill") is None
    assert cluster.missing("broker.stop") == "no command with {broker} to stop one broker"


def test_a_command_with_a_broker_is_for_one_and_others_are_for_all(tmp_path: Path) -> None:
    log = tmp_path / "log"
    given = {"kill": f"echo kill {{broker}} >> {log}", "stop": "false", "start": f"echo start >> {log}"}
    options = Options(commands={("kafka", action): command for action, command in given.items()})

    commands(options, "kafka", [1, 2, 3])["kill"]()
    commands(options, "kafka", [1, 2, 3])["start"]()

    *killed, started = log.read_text().splitlines()
    assert (sorted(killed), started) == (["kill 1", "kill 2", "kill 3"], "start")
    assert broker_commands(options, 2).keys() == {"kill", "start"}


def test_a_command_that_fails_for_one_broker_is_an_error() -> None:
    options = Options(commands={("kafka", "kill"): "test {broker} != 2"})

    with pytest.raises(CannotRun, match="test 2 != 2"):
        commands(options, "kafka", [1, 2, 3])["kill"]()


@contextmanager
def listening() -> Iterator[tuple[Address, Callable[[], None]]]:
    """An address that accepts one connection, and a function that closes it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname(), lambda: server.accept()[0].close()


def test_a_server_is_killed_when_its_connections_are_closed() -> None:
    with listening() as (address, end):
        Server("Kafka", {"kill": end}, lambda: None, [address]).kill()


@pytest.mark.parametrize("action", ["kill", "stop", "pause"])
def test_a_command_without_effect_is_an_error(action: str) -> None:
    with listening() as (address, _), pytest.raises(CannotRun, match="0 s after the command to"):
        getattr(Server("Kafka", {action: lambda: None}, lambda: None, [address], down_timeout=0.2), action)()


def test_a_server_is_stopped_when_it_no_longer_responds() -> None:
    responses = iter([True, True, False])

    def ping() -> None:
        if not next(responses):
            raise PyMongoError

    Server("MongoDB", {"stop": lambda: None}, ping, [("127.0.0.1", 1)]).stop()

    assert next(responses, None) is None


def test_a_process_that_crashed_without_its_protection_proves_nothing() -> None:
    assert verdict_of(["1 lost"], crashed=False) == FAILED
    assert verdict_of(["consumer-1 exited with 1"], crashed=True) == ERROR
    assert verdict_of([], crashed=False) == PASSED


# -- growth


def grown(*values: float) -> Growth:
    growth = Growth()
    for value in values:
        growth.add(value)
    return growth


def test_a_gauge_that_rises_by_more_than_a_tenth_grows() -> None:
    assert not grown(*range(100, 200)).flat
    assert str(grown(*range(100, 200))) == "130 to 190"


def test_a_rise_at_the_start_missing_values_and_a_small_rise_are_not_growth() -> None:
    assert grown(*[10.0] * 20, *[100.0] * 60, *[0.0] * 50, *[109.0] * 20).flat


def test_a_gauge_that_was_never_reported_is_not_flat() -> None:
    assert not grown(*[0.0] * 100).flat


def test_the_soak_runs_only_on_request() -> None:
    requested: list[list[str]] = []

    def run(_options: Options, chosen: Sequence[Scenario]) -> int:
        requested.append([scenario.name for scenario in chosen])
        return 0

    main([], run=run)
    main(["--only", "soak", "--minutes", "2"], run=run)

    assert "soak" not in requested[0]
    assert requested[1] == ["soak"]


# -- faults


class Pauses:
    """The first attempts to pause fail."""

    def __init__(self, failing: int, text: str = "OCI runtime pause failed: unable to freeze") -> None:
        self.attempts = 0
        self._failing = failing
        self._text = text

    def __call__(self) -> None:
        self.attempts += 1
        if self.attempts <= self._failing:
            raise CannotRun(self._text)


@pytest.mark.parametrize(
    ("pauses", "attempts"),
    [
        (Pauses(PAUSE_ATTEMPTS - 1), PAUSE_ATTEMPTS),
        (Pauses(PAUSE_ATTEMPTS), PAUSE_ATTEMPTS),
        (Pauses(1, "no such container"), 1),
    ],
)
def test_a_container_that_cannot_be_frozen_is_tried_again(pauses: Pauses, attempts: int) -> None:
    with suppress(CannotRun):
        pause(pauses)

    assert pauses.attempts == attempts


def not_paused() -> None:
    raise CannotRun("is not paused")


@pytest.mark.parametrize(("failing", "error"), [(1, "cannot pause"), (0, "is not paused")])
def test_the_first_error_of_a_fault_is_raised(failing: int, error: str) -> None:
    server = Server("MongoDB", {"pause": Pauses(failing, "cannot pause"), "resume": not_paused}, lambda: None)

    with pytest.raises(CannotRun, match=error), faults.frozen(server):
        pass
