"""The processes of a trial: the services' own programs, each with its settings and log in the trial's folder."""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from chaos import plan
from chaos.load import Load
from chaos.measurements import count_rebalances
from chaos.proxy import Proxy
from chaos.servers import Cluster
from chaos.verdict import Exit
from local.children import Child, run_program, write_settings
from local.connectivity import host_port
from local.errors import CannotRun
from local.plan import ROOT, Names, command

PROGRAM_TIMEOUT = 1800.0  # seconds; an audit of millions of messages takes minutes
SCAN_TIMEOUT_MS = 300_000  # MongoDB reads millions of documents before it responds


class Processes:
    """Those still running are killed at the end of the `with` block. They lack the protections in `without`."""

    def __init__(self, cluster: Cluster, names: Names, folder: Path, *, without: Collection[str] = ()) -> None:
        self.consumers: list[Child] = []
        self.producers: list[Child] = []
        self.topics: Sequence[str] = ()
        """Those that the consumers read, if there are several."""
        self._cluster = cluster
        self._names = names
        self._folder = folder
        self._without = tuple(without)
        self.document: Mapping[str, Any] = {}
        """The section of the settings."""
        self._allowed_exits: dict[str, set[int]] = {}
        self._running = ExitStack()

    def start_consumer(
        self, *, kafka: Proxy | None = None, mongodb: Proxy | None = None, options: Sequence[str] = (), **settings: Any
    ) -> Child:
        """Connects through the proxies, if any. `options` are those of `python -m chaos.consumer`."""
        given = plan.consumer_settings(
            self._cluster,
            self._names,
            self._folder,
            kafka=host_port(kafka.address) if kafka else self._cluster.kafka_address,
            mongodb=_uri_through(mongodb, self._cluster.mongodb_uri),
            topics=self.topics,
            **settings,
        )
        given["document"] = self.document
        arguments = [*options, *self._without_options]
        module = "chaos.consumer" if arguments else "src.consumer"
        name = f"consumer-{len(self.consumers) + 1}"
        child = self._start(name, "consumer", module, plan.unprotected(given, self._without), *arguments)
        self.consumers.append(child)
        return child

    def start_producer(
        self, load: Load, *, seconds: float, kafka: Proxy | None = None, topic: str | None = None, **settings: Any
    ) -> Child:
        """Sends these messages, spread evenly over this time."""
        name = f"producer-{len(self.producers) + 1}"
        lines = self._folder / f"{name}.jsonl"
        lines.write_text(load.text, encoding="utf-8")
        given = plan.producer_settings(
            self._cluster,
            replace(self._names, topic=topic or self._names.topic),
            self._folder,
            kafka=host_port(kafka.address) if kafka else self._cluster.kafka_address,
            messages=load.size,
            seconds=seconds,
            **settings,
        )
        module = "chaos.producer" if self._without else "src.producer"
        child = self._start(name, "producer", module, given, "--input", str(lines), *self._without_options)
        self.producers.append(child)
        return child

    def allow_exit(self, child: Child, *codes: int) -> None:
        """Exit codes that are not a failure, instead of 0."""
        self._allowed_exits[child.name] = set(codes)

    def exits(self) -> list[Exit]:
        return [
            Exit(child.name, child.exit_code, frozenset(self._allowed_exits.get(child.name, {0})))
            for child in (*self.producers, *self.consumers)
        ]

    @property
    def rebalances(self) -> int:
        return count_rebalances(consumer.log for consumer in self.consumers)

    def resend(self) -> str | None:
        """Resend undelivered messages as an operator would; the program's last line, or None if there are none."""
        if not any((self._folder / "undelivered").glob("*.jsonl")):
            return None
        kafka = self._cluster.kafka_address
        given = plan.producer_settings(self._cluster, self._names, self._folder, kafka=kafka, messages=1, seconds=0)
        done = self._run("producer", "src.undelivered", "undelivered", given, "resend")
        return (done.stdout or done.stderr).strip().splitlines()[-1]

    def documents(self) -> dict[str, Any]:
        """What is stored, by `_id`, without the field `kafka`."""
        done = self._run("consumer", "src.get", "get", self._reader_settings(), "--json", "--limit", "1000000")
        found = [json.loads(line) for line in done.stdout.splitlines()]
        return {
            each["_id"]: {name: value for name, value in each.items() if name not in ("_id", "kafka")} for each in found
        }

    def audit(self) -> dict[str, Any]:
        """Raises CannotRun."""
        given = self._reader_settings()
        done = self._run("consumer", "src.audit", "auditor", given, "--json", "--wait", "10")
        if done.returncode not in (0, 1):
            raise CannotRun(f"the audit failed: {done.stderr.strip()}")
        (self._folder / "audit.json").write_text(done.stdout, encoding="utf-8")
        return _sum_of_topics(json.loads(done.stdout))

    def _reader_settings(self) -> dict[str, Any]:
        kafka, mongodb = self._cluster.kafka_address, self._cluster.mongodb_uri
        given = plan.consumer_settings(
            self._cluster, self._names, self._folder, kafka=kafka, mongodb=mongodb, topics=self.topics
        )
        given["mongodb"]["timeout_ms"] = SCAN_TIMEOUT_MS
        return given | {"document": self.document}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    @property
    def _without_options(self) -> list[str]:
        return [text for protection in self._without for text in ("--without", protection)]

    def _start(self, name: str, service: str, module: str, settings: Mapping[str, Any], *arguments: str) -> Child:
        file = write_settings(self._folder / f"{name}.json", settings)
        child = Child(
            name,
            command(module, file, *arguments),
            ROOT / service,
            self._folder / f"{name}.log",
            environment=plan.environment(os.environ),
        )
        return self._running.enter_context(child)

    def _run(
        self, service: str, module: str, name: str, settings: Mapping[str, Any], *arguments: str
    ) -> CompletedProcess[str]:
        """Raises CannotRun."""
        file = write_settings(self._folder / f"{name}.json", settings)
        program = command(module, file, *arguments)
        return run_program(program, ROOT / service, plan.environment(os.environ), PROGRAM_TIMEOUT)


def _sum_of_topics(report: Mapping[str, Any]) -> dict[str, Any]:
    """The counts of all topics together; the report itself if there is one topic."""
    topics = report.get("topics", [report])
    return {name: sum(topic[name] for topic in topics) for name, count in topics[0].items() if type(count) is int}


def _uri_through(proxy: Proxy | None, uri: str | None) -> str | None:
    if proxy is None or uri is None:
        return uri
    parts = urlsplit(uri)
    login, at, _ = parts.netloc.rpartition("@")
    options = [each for each in parse_qsl(parts.query) if each[0].lower() not in ("directconnection", "replicaset")]
    query = urlencode([*options, proxy.uri_option])
    netloc = f"{login}{at}{host_port(proxy.address)}"
    return urlunsplit(parts._replace(netloc=netloc, path=parts.path or "/", query=query))
