"""One scenario with one seed: the group under load, what can be done to it and observed, and the counts at the end."""

import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from threading import Event
from typing import Any

from chaos import plan, verdict
from chaos.admin import Administrator
from chaos.load import NOTHING, Load, mixed
from chaos.measurements import OffsetWatcher, events, metric, readiness_failures
from chaos.options import Options
from chaos.processes import Processes
from chaos.proxy import Proxy, kafka_proxy, mongodb_proxy
from chaos.replica_set import ReplicaSet
from chaos.servers import Cluster
from local.children import Child
from local.connectivity import Address, kafka_addresses, mongodb_addresses
from local.errors import CannotRun
from local.offsets import OffsetReader
from local.plan import Names
from local.raw_producer import RawHeader, RawRecord, produce_raw

LOAD_SECONDS = 10.0  # in which the messages of a trial are sent
TIMEOUT = 30.0
PROGRESS_TIMEOUT = 60.0
PRODUCED_TIMEOUT = 240.0  # longer than an outage of 90 s and the producer's retries after it
CAUGHT_UP_TIMEOUT = 120.0
READ_TIMEOUT = 2.0
POLL_INTERVAL = 0.1


class TimedOut(Exception):
    """A condition that the scenario waited for was not met in time. The text names it."""


class Trial:
    """The interface for scenarios. Every wait ends at a deadline: it raises TimedOut, or adds it to `failures`."""

    def __init__(
        self,
        cluster: Cluster,
        names: Names,
        options: Options,
        *,
        seed: int,
        admin: Administrator,
        watcher: OffsetWatcher,
        networks: ExitStack,
        processes: Processes,
    ) -> None:
        self.cluster = cluster
        self.names = names
        self.options = options
        self.random = Random(seed)
        self.admin = admin
        self.watcher = watcher
        self.processes = processes
        self.accepted = NOTHING
        self.repeats_allowed = False
        """Whether a dead letter may have been written more than once."""
        self.failures: list[str] = []
        self.notes: list[str] = []
        self.healed_at: float | None = None
        self._other_topics: list[OffsetReader] = []
        self._networks = networks

    # -- load

    def add_topic(self) -> str:
        """A second topic, which the consumers read too, into a collection of its own."""
        topic = plan.second_topic(self.names)
        self.admin.create_second_topic(plan.PARTITIONS)
        self.processes.topics = [self.names.topic, topic]
        self._other_topics.append(_offset_reader(self.cluster, replace(self.names, topic=topic), plan.PARTITIONS))
        return topic

    @property
    def consumers(self) -> Sequence[Child]:
        return self.processes.consumers

    @property
    def messages(self) -> int:
        return self.options.messages

    def start_consumers(self, count: int = 3, **how: Any) -> list[Child]:
        """Returns when each of them has partitions; see Processes.start_consumer."""
        consumers = [self.processes.start_consumer(**how) for _ in range(count)]
        self.wait_for_assignment(consumers)
        return consumers

    def start_producer(self, load: Load | None = None, *, seconds: float = LOAD_SECONDS, **how: Any) -> Child:
        """See Processes.start_producer."""
        load = load or mixed(self.messages, self.random, invalid=0.01)
        self.accepted += load
        return self.processes.start_producer(load, seconds=seconds, **how)

    def produce_raw(
        self, load: Load, *, headers: Sequence[RawHeader] = (), partitions: Collection[int] = range(plan.PARTITIONS)
    ) -> None:
        """Produce as a client in another language would; returns when the brokers have acknowledged all messages."""
        self.accepted += load
        leaders = {partition: leader for partition, leader in self.admin.leaders().items() if partition in partitions}
        records: dict[int, list[RawRecord]] = {partition: [] for partition in leaders}
        for line in load.lines:
            records[self.random.choice(tuple(leaders))].append(RawRecord(line.encode(), None, headers))
        for partition, leader in leaders.items():
            produce_raw(leader, self.names.topic, records[partition], partition)

    def start_load(self, count: int = 3, load: Load | None = None, *, seconds: float = LOAD_SECONDS) -> list[Child]:
        """Start consumers and a producer; returns at a time that the seed determines."""
        consumers = self.start_consumers(count)
        self.start_producer(load, seconds=seconds)
        self.wait_for_progress()
        return consumers

    def wait_for_assignment(self, consumers: Sequence[Child]) -> None:
        self.wait_for(lambda: all(consumer.partitions for consumer in consumers), "each consumer has partitions")

    def wait_for_progress(self) -> None:
        share = self.random.uniform(0.15, 0.6)
        messages = share * self.accepted.size
        self.wait_for(
            lambda: self.watcher.history.settled >= messages, f"{share:.0%} of the messages settled", PROGRESS_TIMEOUT
        )

    # -- faults

    def kill(self, child: Child) -> None:
        child.send_signal(signal.SIGKILL)
        self.wait_until_killed(child)

    def wait_until_killed(self, child: Child) -> None:
        self.repeats_allowed = True
        self.processes.allow_exit(child, -signal.SIGKILL)
        self.wait_for(lambda: child.exit_code is not None, f"{child.name} is killed", PROGRESS_TIMEOUT)

    def stop(self, child: Child) -> None:
        """Not before it has started: SIGTERM kills a Python that is still importing its modules."""
        self.expect(lambda: child.started, f"{child.name} has started")
        child.terminate()
        self._wait_for_exit(child)

    def hold(self, seconds: float, *, quick: float | None = None) -> None:
        """Let a fault last; with --quick, `quick` seconds."""
        if self.options.quick and quick is not None:
            self.notes.append(f"{quick:.0f} s instead of {seconds:.0f} s")
            seconds = quick
        Event().wait(seconds)

    def healed(self) -> None:
        """The fault has ended; from now on the group has to make progress."""
        self.healed_at = time.monotonic()

    def network_to_kafka(self) -> Proxy:
        """For processes that connect through it until the end of the trial."""
        return self._networks.enter_context(kafka_proxy(kafka_addresses(self.cluster.kafka_address)[0]))

    def network_to_mongodb(self) -> Proxy:
        return self._networks.enter_context(mongodb_proxy(self._mongodb_address))

    def replica_set(self) -> ReplicaSet:
        """MongoDB as a set, for consumers that connect to it."""
        return self._networks.enter_context(ReplicaSet(self._mongodb_address))

    @property
    def _mongodb_address(self) -> Address:
        return mongodb_addresses(self.cluster.mongodb_uri or "")[0]

    # -- observation

    def wait_for(self, condition: Callable[[], object], what: str, timeout: float = TIMEOUT) -> None:
        """Raises TimedOut."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimedOut(f"not within {timeout:.0f} s: {what}")
            Event().wait(POLL_INTERVAL)

    def expect(self, condition: Callable[[], object], what: str, timeout: float = TIMEOUT) -> bool:
        """Like `wait_for`, but the scenario continues, and the trial fails at its end."""
        try:
            self.wait_for(condition, what, timeout)
        except TimedOut as error:
            self.failures.append(str(error))
            return False
        return True

    def not_ready(self, child: Child, reason: str = "") -> bool:
        """Whether /ready fails with this reason."""
        return any(reason in each for each in readiness_failures(child.port))

    def expect_partitions_lost(self, consumer: Child) -> None:
        self.expect(lambda: self.logged(consumer, "partitions lost"), f"{consumer.name} logs that it lost partitions")

    def has_committed(self, consumer: Child) -> bool:
        return metric(consumer.port, 'consumer_offset_commits_total{result="success"}') > 0

    def delivered(self, producer: Child) -> float:
        return metric(producer.port, 'producer_messages_total{result="delivered"}')

    def logged(self, child: Child, message: str) -> list[dict[str, Any]]:
        return [event for event in events(child.log) if event.get("message") == message]

    def all_settled(self) -> bool:
        """Whether all producers have ended, and everything in the topic is settled."""
        return all(producer.exit_code is not None for producer in self.processes.producers) and self._caught_up()

    def follow_topic(self, partitions: int, *, recreated: bool = False) -> None:
        """The topic has more partitions now, or was recreated."""
        self.watcher.follow(_offset_reader(self.cluster, self.names, partitions), recreated=recreated)

    # -- the end

    def wait_until_produced(self) -> None:
        for producer in self.processes.producers:
            if not producer.wait(PRODUCED_TIMEOUT):
                self.failures.append(f"{producer.name} did not end within {PRODUCED_TIMEOUT:.0f} s")
                self.stop(producer)

    def wait_until_settled(self) -> None:
        """Undelivered messages are resent first."""
        self.wait_until_produced()
        if output := self.processes.resend():
            self.notes.append(f"undelivered: {output}")
        self.expect(self._caught_up, "the group has caught up", CAUGHT_UP_TIMEOUT)

    def finish(self) -> verdict.Counts:
        """Wait until everything is settled, stop all processes, and count."""
        self.wait_until_settled()
        self.expect(lambda: all(consumer.started for consumer in self.consumers), "each consumer has started")
        for consumer in self.consumers:
            consumer.terminate()
        for consumer in self.consumers:
            self._wait_for_exit(consumer)
        self.failures += self.watcher.history.decreases
        return verdict.count(self.processes.audit(), self.accepted)

    def all_failures(self, counts: verdict.Counts) -> list[str]:
        expected = verdict.Expectation(self.accepted, self.repeats_allowed)
        return verdict.failures(counts, expected, self.processes.exits(), self.failures)

    def clean_up(self) -> None:
        """An error here does not change the verdict."""
        try:
            self.admin.delete_topics()
            self.admin.drop_collection()
        except CannotRun as error:
            self.notes.append(f"not cleaned up: {error}")

    def caught_up_in(self, partitions: Collection[int]) -> bool:
        """Whether every message in these partitions is settled."""
        progress = self.watcher.read()
        return progress is not None and all(
            progress.committed.get(each, 0) == progress.end[each] for each in partitions
        )

    def _wait_for_exit(self, child: Child) -> None:
        if not child.wait():
            self.failures.append(f"{child.name} did not stop in time")

    def _caught_up(self) -> bool:
        progress = self.watcher.read()
        if progress is None or progress.lag > 0 or not sum(progress.committed.values()):
            return False
        return all(_is_read(reader) for reader in self._other_topics)


@contextmanager
def trial(
    cluster: Cluster, names: Names, folder: Path, options: Options, *, seed: int, without: Sequence[str]
) -> Iterator[Trial]:
    """A trial with topics of its own; its processes end with the block. Raises CannotRun."""
    folder.mkdir(parents=True)
    admin = Administrator(cluster, names)
    admin.create_topics(plan.PARTITIONS)
    if "min-insync-replicas" in without:
        admin.acknowledge_single_copies()
    with (
        OffsetWatcher(_offset_reader(cluster, names, plan.PARTITIONS)) as watcher,
        ExitStack() as networks,
        Processes(cluster, names, folder, without=without) as processes,
    ):
        yield Trial(
            cluster, names, options, seed=seed, admin=admin, watcher=watcher, networks=networks, processes=processes
        )


def _is_read(reader: OffsetReader) -> bool:
    try:
        return reader.read().lag == 0
    except CannotRun:
        return False


def _offset_reader(cluster: Cluster, names: Names, partitions: int) -> OffsetReader:
    return OffsetReader(cluster.kafka_address, names.topic, names.group, partitions, timeout=READ_TIMEOUT)
