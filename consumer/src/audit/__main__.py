"""`python -m src.audit`: verify that every committed message is stored or dead-lettered, and none twice."""

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence

from src.audit.comparison import Audit
from src.audit.report import Report, all_as_json, all_as_table
from src.dead_letters.options import iso_time
from src.kafka.topic_reader import TopicReader
from src.model.errors import ConsumerError
from src.settings import DEFAULT_FILE, VERSION, KafkaSettings, Settings, load_settings
from src.storage import DataStorage
from src.utils import command_line
from src.utils.config import ConfigurationError
from src.utils.logging import configure
from src.utils.progress import ProgressLine

PASSED, FAILED, CANNOT_RUN = 0, 1, 2


def run_audit(
    options: argparse.Namespace, *, new_reader: Callable[[KafkaSettings], TopicReader] = TopicReader
) -> Sequence[Report]:
    """One report for each topic."""
    settings = load_settings(options.config, os.environ)
    deadline = time.monotonic() + options.wait
    with new_reader(settings.kafka) as reader:
        topics = reader.topics(settings.kafka)
        return [_run(settings.of_topic(topic), reader, options, deadline, len(topics)) for topic in topics]


def _run(settings: Settings, reader: TopicReader, options: argparse.Namespace, deadline: float, topics: int) -> Report:
    name = "audit" if topics == 1 else f"audit of {settings.kafka.topic}"
    with DataStorage(settings.mongodb, settings.document) as storage:
        storage.ping()
        audit = Audit(settings, reader, storage, since=options.since, show=ProgressLine(name, quiet=options.quiet))
        audit.wait(deadline - time.monotonic())
        return audit.run()


def main(
    arguments: Sequence[str] | None = None, *, run: Callable[[argparse.Namespace], Sequence[Report]] = run_audit
) -> int:
    """Returns the exit code. The report is written to standard output, errors to standard error."""

    def body() -> int:
        options = _parser().parse_args(arguments)
        configure(service="audit", version=VERSION, level="WARNING", style="text", stream=sys.stderr)
        logging.getLogger("librdkafka").setLevel(logging.CRITICAL)  # the error text has the client's last error
        reports = run(options)
        print(all_as_json(reports) if options.json else all_as_table(reports))
        return PASSED if all(report.passed for report in reports) else FAILED

    failures: dict[type[Exception], int] = {ConfigurationError: CANNOT_RUN, ConsumerError: CANNOT_RUN}
    return command_line.run("audit", body, failures, error_code=CANNOT_RUN)


def _parser() -> argparse.ArgumentParser:
    parser = command_line.parser(
        "audit",
        VERSION,
        "Compare each topic, up to the group's committed offsets, with the dead letters and the store."
        " Reads only: it does not join the group, and commits, stores and dead-letters nothing.",
        notes="Topics, group and store are those of the consumer's settings file and environment.",
        examples=["--wait 60"],
        exit_codes="0 no message is lost or twice; 1 one is; 2 the audit cannot run, or wrong configuration or"
        " arguments",
    )
    command_line.add_config(parser, DEFAULT_FILE)
    command_line.add_quiet(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--since",
        type=iso_time,
        metavar="TIME",
        help="leave out what is before the first message at or after TIME (ISO 8601, UTC by default) in each partition,"
        " such as the messages before those that the group was set to start with",
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="wait at most SECONDS until the group has committed every message that is in the topic now",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
