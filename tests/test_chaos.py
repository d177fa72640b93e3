"""The proof's own judgement: what it is asked, what it expects, and that it can fail."""

import json
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pymongo.errors import PyMongoError

from chaos import scenarios
from chaos.__main__ import main
from chaos.load import Load, mixed, plain, refused, two_versions
from chaos.measures import Course, Growth
from chaos.options import Options, chosen, parse
from chaos.plan import environment, unprotected
from chaos.report import BROKEN, FAILED, NOT_HERE, PASSED, Row, line, sentence, write
from chaos.scenarios.scenario import Scenario
from chaos.servers import NEEDS, Cluster, Server
from chaos.suite import judged, status
from chaos.verdict import Counts, Exit, Expectation, complaints, counted
from chaos.wires import Address
from local.errors import CannotRun
from local.plan import ALLOCATOR
from local.progress import Progress

NAMES = ["consumer-killed", "consumer-stopped", "kafka-killed"]
COMMANDS = ("--on", "commands", "--kafka", "h:1", "--mongodb", "mongodb://h")


def asked(*arguments: str) -> Options:
    return parse(arguments, NAMES, ["identity", "patience"])


# -- options


def test_the_default_needs_no_servers_and_tries_each_scenario_once() -> None:
    options = asked()

    assert (options.on, options.seeds, chosen(options, NAMES)) == ("embedded", (1,), NAMES)


def test_a_scenario_is_named_whole_by_its_beginning_or_by_a_pattern_and_keeps_its_place() -> None:
    assert chosen(asked("--only", "kafka-killed", "--only", "consumer-stopped"), NAMES) == NAMES[1:]
    assert chosen(asked("--only", "consumer"), NAMES) == NAMES[:2]
    assert chosen(asked("--only", "*-killed"), NAMES) == ["consumer-killed", "kafka-killed"]


def test_seeds_are_counted_from_the_first() -> None:
    assert asked("--seed", "7", "--seeds", "3").seeds == (7, 8, 9)


def test_commands_belong_to_a_server_and_an_act() -> None:
    options = asked(*COMMANDS, "--kafka-kill", "k", "--kafka-start", "s")

    assert options.commands == {("kafka", "kill"): "k", ("kafka", "start"): "s"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--only", "nobody"], "no scenario is called so"),
        (["--without", "luck"], "no protection is called so"),
        (["--without", "identity", "--prove"], "leave --without away"),
        (["--on", "commands"], "needs --kafka HOST:PORT and --mongodb URI"),
        (["--kafka", "h:1"], "this is --on embedded"),
        ([*COMMANDS, "--mongodb-kill", "k"], "--mongodb-kill needs --mongodb-start"),
        ([*COMMANDS, "--kafka-pause", "k"], "--kafka-pause needs --kafka-resume"),
        (["--messages", "1999"], "less than 2000"),
        (["--seeds", "0"], "no whole number above 0"),
        (["--report", "results.txt"], "neither in .md nor in .json"),
        (["--report", "/nowhere/results.md"], "there is no folder"),
        (["--on", "paper"], "invalid choice"),
    ],
)
def test_a_wrong_option_is_told_in_a_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        asked(*arguments)

    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_what_can_not_run_is_told_in_a_sentence_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    def run(_options: Options, _scenarios: object) -> int:
        raise CannotRun("no Kafka there")

    assert main([], run=run) == 2
    assert capsys.readouterr().err == "chaos.sh: no Kafka there\n"


def test_the_list_tells_each_scenario_and_what_it_tests(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--list", "--only", "consumer-asleep"])

    assert status == 0
    assert capsys.readouterr().out == (
        "consumer-asleep\n"
        "  A consumer does not run for longer than its session, and then goes on as if nothing had been.\n"
        "  without: assignment-numbers\n"
    )


@pytest.mark.parametrize("scenario", scenarios.ALL, ids=lambda scenario: scenario.name)
def test_every_scenario_tells_its_story_names_its_protection_and_has_known_needs(scenario: Scenario) -> None:
    assert scenario.story.endswith(".")
    assert scenario.protection
    assert set(scenario.needs) <= NEEDS.keys()


# -- the load


MIXES: list[Callable[[int, Random], Load]] = [
    plain,
    two_versions,
    refused,
    lambda count, random: mixed(count, random, broken=0.5),
]


@pytest.mark.parametrize("make", MIXES)
def test_each_message_is_good_or_bad_and_the_seed_decides_which(make: Callable[[int, Random], Load]) -> None:
    load = make(200, Random(1))

    ids = [json.loads(line)["id"] for line in load.lines]
    assert len(set(ids)) == 200
    assert load.good | load.bad == set(ids)
    assert not load.good & load.bad
    assert load == make(200, Random(1)) != make(200, Random(2))


def test_what_is_sent_twice_is_one_message() -> None:
    load = mixed(100, Random(1), broken=0.5)

    assert (load + load).size == 200
    assert ((load + load).good, (load + load).bad) == (load.good, load.bad)
    assert len((load + plain(10, Random(2))).good) == 60


def test_what_a_producer_took_is_the_beginning_of_its_load() -> None:
    load = mixed(100, Random(1), broken=0.5)

    first = load.first(10)

    assert first.lines == load.lines[:10]
    assert len(first.good) + len(first.bad) == 10


# -- the verdict


LOAD = mixed(100, Random(1), broken=0.1)
WELL: dict[str, Any] = {
    "produced": 100,
    "stored": 90,
    "duplicates": 0,
    "dead_lettered": 10,
    "pending": 0,
    "lost": 0,
    "twice": 0,
    "repeated": 0,
}


def verdict(
    audit: Mapping[str, int] | None = None,
    *,
    repeats: bool = False,
    exits: Sequence[Exit] = (),
    broken: Sequence[str] = (),
) -> list[str]:
    return complaints(counted({**WELL, **(audit or {})}, LOAD), Expectation(LOAD, repeats), exits, broken)


def test_a_trial_where_every_message_is_where_it_belongs_passes() -> None:
    assert verdict() == []


@pytest.mark.parametrize(
    ("audit", "complaint"),
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
def test_whatever_is_not_where_it_belongs_fails_the_trial(audit: dict[str, int], complaint: str) -> None:
    assert complaint in verdict(audit)


def test_a_good_message_in_the_dead_letters_is_in_the_wrong_place_and_not_lost() -> None:
    assert verdict({"stored": 85, "dead_lettered": 15}) == ["15 dead-lettered instead of 10"]


def test_what_is_not_settled_yet_is_not_lost() -> None:
    assert verdict({"stored": 80, "pending": 10}) == ["10 not settled"]


def test_a_crash_explains_a_repeated_dead_letter() -> None:
    assert verdict({"repeated": 3}, repeats=True) == []


def test_a_broken_message_that_was_sent_twice_is_parked_twice() -> None:
    assert verdict({"produced": 103, "duplicates": 2, "dead_lettered": 11}) == []


def test_an_exit_code_that_nothing_explains_fails_the_trial() -> None:
    exits = (Exit("consumer-1", 0, frozenset({0})), Exit("consumer-2", 1, frozenset({0, -9})))

    assert verdict(exits=exits) == ["consumer-2 ended with 1"]


def test_a_fact_that_did_not_hold_fails_the_trial() -> None:
    assert verdict(broken=("/ready said nothing",)) == ["/ready said nothing"]


def test_counts_keep_what_the_row_shows() -> None:
    assert counted(WELL, LOAD) == Counts(lost=0, twice=0, stored=90, dead_lettered=10, repeated=0, pending=0, copies=0)


# -- the measures


def course(*looks: tuple[float, int, int], forgiving: bool = False) -> Course:
    """Of one partition: moment, committed, end."""
    found = Course(forgiving=forgiving)
    for moment, committed, end in looks:
        found.add(moment, Progress(ends={0: end}, committed={0: committed}))
    return found


def test_a_pause_is_a_time_with_messages_and_no_commit() -> None:
    assert course((0, 0, 5), (1, 5, 5), (9, 5, 5), (10, 5, 9), (13, 5, 12), (14, 12, 12)).longest_pause == 4


def test_a_partition_that_stands_still_is_seen_beside_one_that_moves() -> None:
    found = Course()
    for moment in range(5):
        found.add(moment, Progress(ends={0: 9, 1: 9}, committed={0: moment, 1: 2}))

    assert found.longest_pause == 4


def test_progress_is_counted_from_the_healing_to_the_last_partition_that_moves() -> None:
    found = Course()
    for moment, first, second in ((0, 1, 1), (1, 1, 1), (2, 3, 1), (4, 3, 3)):
        found.add(moment, Progress(ends={0: 9, 1: 9}, committed={0: first, 1: second}))

    assert found.progress_after(1.0) == 3
    assert found.progress_after(4.0) is None


def test_a_commit_that_goes_back_is_noticed_unless_the_topic_is_a_new_one() -> None:
    looks = ((0, 5, 9), (1, 3, 9))

    assert course(*looks).went_back == ["partition 0 went back from 5 to 3"]
    assert course(*looks, forgiving=True).went_back == []


def test_what_was_seen_last_is_how_far_it_is() -> None:
    found = course((0, 3, 9), (1, 5, 9))

    assert found.settled == 5
    assert found.progress.lag == 4


# -- the report


PASS_ROW = Row("kafka-killed", 1, PASSED, messages=4000, progress_seconds=1.25, exits="0 0")
FAIL_ROW = Row("kafka-killed", 2, FAILED, messages=4000, lost=3, notes=("3 lost",))
BROKEN_ROW = Row("kafka-killed", 3, BROKEN, notes=("Kafka does not answer",))
ABSENT_ROW = Row("mongodb-slow", 1, NOT_HERE, notes=("no MongoDB",))


def test_a_row_that_failed_fails_the_run_and_one_that_is_not_here_does_not() -> None:
    assert status([PASS_ROW, ABSENT_ROW], prove=False) == 0
    assert status([PASS_ROW, FAIL_ROW], prove=False) == 1


def test_with_the_protections_taken_out_a_row_that_passes_fails_the_run() -> None:
    assert status([FAIL_ROW, ABSENT_ROW], prove=True) == 0
    assert status([FAIL_ROW, PASS_ROW], prove=True) == 1


def test_a_trial_that_could_not_be_carried_out_is_good_for_nothing() -> None:
    assert status([BROKEN_ROW], prove=False) == 1
    assert status([BROKEN_ROW], prove=True) == 1
    assert sentence([PASS_ROW, BROKEN_ROW]) == (
        "FAIL: 1 passed, 0 failed, 1 could not be carried out, 0 not here; 0 lost, 0 twice."
    )


def test_what_is_to_be_proved_is_that_every_row_fails() -> None:
    assert sentence([FAIL_ROW], prove=True).startswith("PROVED: 0 passed, 1 failed")
    assert sentence([FAIL_ROW, PASS_ROW], prove=True).startswith("NOT PROVED: ")
    assert sentence([FAIL_ROW, BROKEN_ROW], prove=True).startswith("NOT PROVED: ")


def test_where_nothing_could_be_tried_nothing_has_passed() -> None:
    assert status([ABSENT_ROW], prove=False) == 2
    assert status([ABSENT_ROW], prove=True) == 2
    assert sentence([ABSENT_ROW]) == "NOTHING TRIED: 0 passed, 0 failed, 1 not here."


def test_what_is_not_here_is_never_counted_as_passed() -> None:
    assert sentence([PASS_ROW, ABSENT_ROW]) == "PASS: 1 passed, 0 failed, 1 not here; 0 lost, 0 twice."
    assert line(ABSENT_ROW) == "not here mongodb-slow 1: no MongoDB"


def test_a_report_in_markdown_has_a_line_a_row(tmp_path: Path) -> None:
    path = tmp_path / "results.md"

    write([PASS_ROW, FAIL_ROW, ABSENT_ROW], path, "Today, here.")

    lines = path.read_text().splitlines()
    assert lines[0] == "Today, here."
    assert lines[4] == "| kafka-killed | 1 | 4,000 | 0 | 0 | 0 | 0 | 1.2 s | 0 | – | 0 0 | pass |  |"
    assert lines[-1] == "FAIL: 1 passed, 1 failed, 1 not here; 3 lost, 0 twice."
    assert len({line.count("|") for line in lines[2:-2]}) == 1


def test_a_report_in_json_has_every_number(tmp_path: Path) -> None:
    path = tmp_path / "results.json"

    write([FAIL_ROW], path, "Today, here.")

    report = json.loads(path.read_text())
    assert report["run"] == "Today, here."
    assert (report["rows"][0]["lost"], report["rows"][0]["verdict"]) == (3, FAILED)


# -- the processes


def test_no_setting_of_the_callers_shell_reaches_a_trial() -> None:
    inherited = {"PATH": "/bin", "KAFKA_TOPIC": "mine", "CONSUMER_DEAD_LETTER_STORM_PERCENT": "1", "LOG_DIR": "/logs"}

    given = environment(inherited)

    assert given.keys() == {*ALLOCATOR, "PATH", "PYTHONPATH"}


def test_a_setting_takes_a_protection_out_and_the_others_stay() -> None:
    settings = {"consumer": {"batch_size": 100, "on_offset_gap": "stop"}, "mongodb": {"uri": "mongodb://h"}}

    given = unprotected(settings, ["gap-stop", "identity"])

    assert given == {"consumer": {"batch_size": 100, "on_offset_gap": "earliest"}, "mongodb": {"uri": "mongodb://h"}}


# -- the servers


def test_what_the_servers_can_not_do_is_said_with_the_reason() -> None:
    kafka = Server("Kafka", {"kill": lambda: None}, lambda: None)
    cluster = Cluster("h:1", kafka, None, Server("SQLite", {}, lambda: None))

    assert cluster.lacks("kafka.kill") is None
    assert cluster.lacks("kafka.pause") == "nothing here can pause Kafka"
    assert cluster.lacks("mongodb") == "the store is a SQLite file, no MongoDB"


@contextmanager
def listening() -> Iterator[tuple[Address, Callable[[], None]]]:
    """An address that takes one connection, and what ends that."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname(), lambda: server.accept()[0].close()


def test_a_server_is_killed_when_its_connections_end() -> None:
    with listening() as (address, end):
        Server("Kafka", {"kill": end}, lambda: None, address).kill()


@pytest.mark.parametrize("act", ["kill", "stop", "pause"])
def test_a_command_that_does_nothing_is_no_fault(act: str) -> None:
    with listening() as (address, _), pytest.raises(CannotRun, match="0 s after the command to"):
        getattr(Server("Kafka", {act: lambda: None}, lambda: None, address, gone_within=0.2), act)()


def test_a_server_that_does_not_answer_any_more_is_stopped() -> None:
    answers = iter([True, True, False])

    def asked() -> None:
        if not next(answers):
            raise PyMongoError

    Server("MongoDB", {"stop": lambda: None}, asked, ("127.0.0.1", 1)).stop()

    assert next(answers, None) is None


def test_a_process_that_died_without_its_protection_proves_nothing() -> None:
    assert judged(["1 lost"], died=False) == FAILED
    assert judged(["consumer-1 ended with 1"], died=True) == BROKEN
    assert judged([], died=False) == PASSED


# -- what may not grow


def grown(*values: float) -> Growth:
    growth = Growth()
    for value in values:
        growth.add(value)
    return growth


def test_a_gauge_that_rises_by_more_than_a_tenth_grows() -> None:
    assert not grown(*range(100, 200)).flat
    assert str(grown(*range(100, 200))) == "130 to 190"


def test_a_start_is_no_growth_and_neither_is_a_silence_or_a_little_more() -> None:
    assert grown(*[10.0] * 20, *[100.0] * 60, *[0.0] * 50, *[109.0] * 20).flat


def test_what_never_told_is_not_called_flat() -> None:
    assert not grown(*[0.0] * 100).flat


def test_hours_of_soaking_are_for_who_asks_for_them() -> None:
    asked_for: list[list[str]] = []

    def run(_options: Options, chosen: Sequence[Scenario]) -> int:
        asked_for.append([scenario.name for scenario in chosen])
        return 0

    main([], run=run)
    main(["--only", "soak", "--minutes", "2"], run=run)

    assert "soak" not in asked_for[0]
    assert asked_for[1] == ["soak"]
