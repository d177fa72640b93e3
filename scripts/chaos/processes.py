"""The processes of a trial: the services' own programs, each with its settings and its log in the trial's folder."""

import json
import os
import subprocess
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from chaos import plan
from chaos.load import Load
from chaos.measures import rebalances
from chaos.proxy import Proxy
from chaos.servers import Cluster
from chaos.verdict import Exit
from local.children import Child
from local.errors import CannotRun
from local.plan import ROOT, Names

ANSWERS_WITHIN = 1800.0  # seconds, a program that is asked something: an audit of millions takes minutes
SCANS_WITHIN_MS = 300_000  # a server that reads millions of documents before it answers


class Processes:
    """Those that run end with the `with` block.

    `without` are protections that are taken out of each that is started.
    """

    def __init__(self, cluster: Cluster, names: Names, folder: Path, *, without: Collection[str] = ()) -> None:
        self.consumers: list[Child] = []
        self.producers: list[Child] = []
        self._cluster = cluster
        self._names = names
        self._folder = folder
        self._without = tuple(without)
        self._allowed: dict[str, set[int]] = {}
        self._running = ExitStack()

    def consumer(
        self, *, kafka: Proxy | None = None, mongodb: Proxy | None = None, program: Sequence[str] = (), **settings: Any
    ) -> Child:
        """One more. Through a proxy, where one is given; `program` are options of `python -m chaos.consumer`."""
        given = plan.consumer_settings(
            self._cluster,
            self._names,
            self._folder,
            kafka=_through(kafka) or self._cluster.kafka_address,
            mongodb=_uri_through(mongodb, self._cluster.mongodb_uri),
            **settings,
        )
        options = [*program, *plan.without(self._without)]
        module = "chaos.consumer" if options else "src.consumer"
        name = f"consumer-{len(self.consumers) + 1}"
        child = self._start(name, "consumer", module, plan.unprotected(given, self._without), *options)
        self.consumers.append(child)
        return child

    def producer(self, load: Load, *, seconds: float, kafka: Proxy | None = None, **settings: Any) -> Child:
        """Sends these messages, spread over so many seconds."""
        name = f"producer-{len(self.producers) + 1}"
        lines = self._folder / f"{name}.jsonl"
        lines.write_text(load.text, encoding="utf-8")
        given = plan.producer_settings(
            self._cluster,
            self._names,
            self._folder,
            kafka=_through(kafka) or self._cluster.kafka_address,
            messages=load.size,
            seconds=seconds,
            **settings,
        )
        module = "chaos.producer" if "undelivered-file" in self._without else "src.producer"
        child = self._start(name, "producer", module, given, "--input", str(lines))
        self.producers.append(child)
        return child

    def may_end(self, child: Child, *codes: int) -> None:
        """Exit codes that are no fault, instead of 0."""
        self._allowed[child.name] = set(codes)

    def exits(self) -> list[Exit]:
        return [
            Exit(child.name, child.exit_code, frozenset(self._allowed.get(child.name, {0})))
            for child in (*self.producers, *self.consumers)
        ]

    @property
    def rebalances(self) -> int:
        return rebalances(consumer.log for consumer in self.consumers)

    def resend(self) -> str | None:
        """What the producers kept goes to Kafka as an operator would send it; what the program says of it."""
        if not any((self._folder / "undelivered").glob("*.jsonl")):
            return None
        kafka = self._cluster.kafka_address
        given = plan.producer_settings(
            self._cluster, self._names, self._folder, kafka=kafka, messages=1, seconds=plan.AT_ONCE
        )
        done = self._ask("producer", "src.undelivered", self._write("undelivered", given), "resend")
        return (done.stdout or done.stderr).strip().splitlines()[-1]

    def audit(self) -> dict[str, Any]:
        """Raises CannotRun."""
        kafka, mongodb = self._cluster.kafka_address, self._cluster.mongodb_uri
        given = plan.consumer_settings(self._cluster, self._names, self._folder, kafka=kafka, mongodb=mongodb)
        given["mongodb"]["timeout_ms"] = SCANS_WITHIN_MS
        done = self._ask("consumer", "src.audit", self._write("auditor", given), "--json", "--wait", "10")
        if done.returncode not in (0, 1):
            raise CannotRun(f"the audit could not be made: {done.stderr.strip()}")
        (self._folder / "audit.json").write_text(done.stdout, encoding="utf-8")
        return dict(json.loads(done.stdout))

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def _start(self, name: str, service: str, module: str, settings: Mapping[str, Any], *more: str) -> Child:
        child = Child(
            name,
            plan.command(module, self._write(name, settings), *more),
            ROOT / service,
            self._folder / f"{name}.log",
            environment=plan.environment(os.environ),
        )
        return self._running.enter_context(child)

    def _ask(self, service: str, module: str, settings: Path, *more: str) -> "subprocess.CompletedProcess[str]":
        """What one of the services' own programs answers. Raises CannotRun."""
        try:
            return subprocess.run(
                plan.command(module, settings, *more),
                cwd=ROOT / service,
                env=plan.environment(os.environ),
                capture_output=True,
                text=True,
                encoding="utf-8",
                check=False,
                timeout=ANSWERS_WITHIN,
            )
        except subprocess.TimeoutExpired as error:
            raise CannotRun(f"{module} has not ended within {ANSWERS_WITHIN:.0f} s") from error

    def _write(self, name: str, settings: Mapping[str, Any]) -> Path:
        """For nobody else to read: a MongoDB URI may hold a password."""
        path = self._folder / f"{name}.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(settings, indent=2), encoding="utf-8")
        return path


def _through(proxy: Proxy | None) -> str | None:
    return f"{proxy.address[0]}:{proxy.address[1]}" if proxy else None


def _uri_through(proxy: Proxy | None, uri: str | None) -> str | None:
    if proxy is None or uri is None:
        return uri
    parts = urlsplit(uri)
    login, at, _ = parts.netloc.rpartition("@")
    options = [option for option in parse_qsl(parts.query) if option[0].lower() != "directconnection"]
    straight = urlencode([*options, ("directConnection", "true")])  # a replica set would send its client on
    return urlunsplit(parts._replace(netloc=f"{login}{at}{_through(proxy)}", path=parts.path or "/", query=straight))
