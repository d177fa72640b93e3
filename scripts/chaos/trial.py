"""One scenario with one seed: what happens to the group, what is to be seen of it, and the account at the end."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from threading import Event
from typing import Any

from chaos import faults, plan
from chaos.admin import Administrator, once_settled
from chaos.load import NOTHING, Load, mixed
from chaos.measures import Watch, events, sample, unready
from chaos.options import Options
from chaos.processes import Processes
from chaos.proxy import Proxy, kafka_proxy, mongodb_proxy
from chaos.servers import Cluster
from chaos.verdict import Counts, Expectation, complaints, counted
from local.children import Child
from local.errors import CannotRun
from local.plan import Names
from local.progress import Meter
from local.reach import in_kafka, in_mongodb

LOAD_SECONDS = 10.0  # in which the messages of a trial are sent
STARTED_WITHIN = 30.0
REACHED_WITHIN = 60.0
PRODUCED_WITHIN = 240.0  # longer than an outage of 90 s and what the producer's retries take after it
CAUGHT_UP_WITHIN = 120.0
LOOK_EVERY = 0.1
KILLED = -9


class Stalled(Exception):
    """What a scenario waited for did not come in time. The text says what."""


class Trial:
    """What a scenario has at hand. Every wait ends at a deadline: then it raises Stalled, or notes it in `broken`."""

    def __init__(
        self,
        cluster: Cluster,
        names: Names,
        options: Options,
        *,
        seed: int,
        admin: Administrator,
        watch: Watch,
        network: ExitStack,
        processes: Processes,
    ) -> None:
        self.cluster = cluster
        self.names = names
        self.options = options
        self.random = Random(seed)
        self.admin = admin
        self.watch = watch
        self.processes = processes
        self.accepted = NOTHING
        self.repeats = False  # whether a dead letter may be there more than once
        self.broken: list[str] = []
        self.notes: list[str] = []
        self.healed_at: float | None = None
        self._network = network

    # -- under load

    @property
    def consumers(self) -> Sequence[Child]:
        return self.processes.consumers

    @property
    def messages(self) -> int:
        return self.options.messages

    def consumer(self, **how: Any) -> Child:
        """One more; see Processes.consumer."""
        return self.processes.consumer(**how)

    def group(self, size: int = 3, **how: Any) -> list[Child]:
        """So many consumers, all of them with partitions."""
        consumers = [self.consumer(**how) for _ in range(size)]
        self.joined(consumers)
        return consumers

    def joined(self, consumers: Sequence[Child]) -> None:
        self.wait(lambda: all(consumer.partitions for consumer in consumers), "each consumer has partitions")

    def produce(self, load: Load | None = None, *, seconds: float = LOAD_SECONDS, **how: Any) -> Child:
        """Send these messages, while the scenario goes on; see Processes.producer."""
        load = load or mixed(self.messages, self.random, broken=0.01)
        self.accepted += load
        return self.processes.producer(load, seconds=seconds, **how)

    def under_load(self, size: int = 3, load: Load | None = None, *, seconds: float = LOAD_SECONDS) -> list[Child]:
        """A group at work, at the moment that the seed chooses."""
        consumers = self.group(size)
        self.produce(load, seconds=seconds)
        self.some_settled()
        return consumers

    def some_settled(self) -> None:
        share = self.random.uniform(0.15, 0.6)
        wanted = share * self.accepted.size
        self.wait(lambda: self.watch.course.settled >= wanted, f"{share:.0%} of the messages settled", REACHED_WITHIN)

    # -- what happens to it

    def kill(self, child: Child) -> None:
        self.repeats = True
        self.processes.may_end(child, KILLED)
        faults.kill(child)

    def dies(self, child: Child) -> None:
        """One that kills itself has done so."""
        self.repeats = True
        self.processes.may_end(child, KILLED)
        self.wait(lambda: child.exit_code is not None, f"{child.name} is dead", REACHED_WITHIN)

    def stop(self, child: Child) -> None:
        child.ask_to_stop()
        self._await_end(child)

    def hold(self, seconds: float, *, quick: float | None = None) -> None:
        """Let a fault last."""
        if self.options.quick and quick is not None:
            self.notes.append(f"{quick:.0f} s instead of {seconds:.0f} s")
            seconds = quick
        Event().wait(seconds)

    def healed(self) -> None:
        """From now on it has to get on."""
        self.healed_at = time.monotonic()

    def network_to_kafka(self) -> Proxy:
        """For those who are to go through it; it stands as long as the trial."""
        return self._network.enter_context(kafka_proxy(in_kafka(self.cluster.kafka_address)[0]))

    def network_to_mongodb(self) -> Proxy:
        return self._network.enter_context(mongodb_proxy(in_mongodb(self.cluster.mongodb_uri or "")[0]))

    # -- what is to be seen

    def wait(self, condition: Callable[[], object], what: str, within: float = STARTED_WITHIN) -> None:
        """Raises Stalled where it does not come true in time."""
        deadline = time.monotonic() + within
        while not condition():
            if time.monotonic() > deadline:
                raise Stalled(f"not within {within:.0f} s: {what}")
            Event().wait(LOOK_EVERY)

    def sees(self, condition: Callable[[], object], what: str, within: float = STARTED_WITHIN) -> bool:
        """A fact of the scenario; where it does not come true in time the trial has failed, and goes on."""
        try:
            self.wait(condition, what, within)
        except Stalled as error:
            self.broken.append(str(error))
            return False
        return True

    def says(self, child: Child, text: str) -> bool:
        """Whether it is not ready, for a reason with these words."""
        return any(text in reason for reason in unready(child.port))

    def loses_partitions(self, consumer: Child) -> None:
        """They went to others while it was not heard of."""
        self.sees(lambda: self.said(consumer, "partitions lost"), f"{consumer.name} says that it lost its partitions")

    def has_committed(self, consumer: Child) -> bool:
        return sample(consumer.port, 'consumer_offset_commits_total{result="success"}') > 0

    def said(self, child: Child, message: str) -> list[dict[str, Any]]:
        return [event for event in events(child.log) if event.get("message") == message]

    def follow(self, partitions: int, *, anew: bool = False) -> None:
        """Look at a topic that has other partitions, or was made anew."""
        self.watch.follow(_meter(self.cluster, self.names, partitions), anew=anew)

    # -- the account

    def produced(self) -> None:
        """The producers have come to their end."""
        for producer in self.processes.producers:
            if not producer.wait(PRODUCED_WITHIN):
                self.broken.append(f"{producer.name} did not end within {PRODUCED_WITHIN:.0f} s")
                self.stop(producer)

    def settled(self) -> None:
        """All that was produced is settled; what the producers had to keep was sent again."""
        self.produced()
        if said := self.processes.resend():
            self.notes.append(f"undelivered: {said}")
        self.sees(self._caught_up, "the group has caught up", CAUGHT_UP_WITHIN)

    def finish(self) -> Counts:
        """Wait until all is settled, stop everything, and count."""
        self.settled()
        self.sees(lambda: all(map(_hears, self.consumers)), "each consumer serves")
        for consumer in self.consumers:
            consumer.ask_to_stop()
        for consumer in self.consumers:
            self._await_end(consumer)
        self.broken += self.watch.course.went_back
        return counted(self.processes.audit(), self.accepted)

    def complaints(self, counts: Counts) -> list[str]:
        expected = Expectation(self.accepted, self.repeats)
        return complaints(counts, expected, self.processes.exits(), self.broken)

    def clean_up(self) -> None:
        """What the trial has found stands, whatever becomes of its topics."""
        try:
            self.admin.delete_topics()
            self.admin.drop_collection()
        except CannotRun as error:
            self.notes.append(f"not cleaned up: {error}")

    def _await_end(self, child: Child) -> None:
        if not child.wait():
            self.broken.append(f"{child.name} did not stop in time")

    def _caught_up(self) -> bool:
        progress = self.watch.look()
        return progress is not None and progress.lag == 0 and sum(progress.committed.values()) > 0


@contextmanager
def trial(
    cluster: Cluster, names: Names, folder: Path, options: Options, *, seed: int, without: Sequence[str]
) -> Iterator[Trial]:
    """A trial with topics of its own; its processes end with the block. Raises CannotRun."""
    folder.mkdir(parents=True)
    admin = Administrator(cluster, names)
    admin.make_topics(plan.PARTITIONS)
    with (
        Watch(_meter(cluster, names, plan.PARTITIONS)) as watch,
        ExitStack() as network,
        Processes(cluster, names, folder, without=without) as processes,
    ):
        yield Trial(cluster, names, options, seed=seed, admin=admin, watch=watch, network=network, processes=processes)


def _hears(child: Child) -> bool:
    """Whether it would hear a SIGTERM; one that is being loaded dies of it."""
    return child.exit_code is not None or child.port is not None


def _meter(cluster: Cluster, names: Names, partitions: int) -> Meter:
    return once_settled(Meter, cluster.kafka_address, names.topic, names.group, partitions, patience=2.0)
