"""A cluster of three brokers: one of them is killed, restarted or frozen, or two are stopped."""

from collections.abc import Callable
from contextlib import ExitStack

from chaos import faults
from chaos.load import mixed
from chaos.scenarios.scenario import scenario
from chaos.servers import Server
from chaos.trial import Trial
from local.children import Child

LOAD_SECONDS = 20.0
LONG_LOAD_SECONDS = 120.0  # longer than an outage
FROZEN, FROZEN_QUICK = 60.0, 15.0
BEFORE_REPLICATION = 3.0  # seconds; less than a broker's session timeout, so its partitions keep their leaders
UNREADY_TIMEOUT = 60.0
SETTLED_TIMEOUT = 60.0  # from the fault, of messages that are sent in LOAD_SECONDS
IN_SYNC_TIMEOUT = 120.0


@scenario("undelivered-folder", requires=("broker.kill",))
def brokers_killed_in_turn(trial: Trial) -> None:
    """Each of three brokers is killed and restarted: leaders, coordinators and, in KRaft, the active controller."""
    _each_in_turn(trial, faults.killed)


@scenario("undelivered-folder", requires=("broker.stop",))
def brokers_restarted_in_turn(trial: Trial) -> None:
    """A rolling restart of three brokers; after each, the preferred leaders are elected again."""
    _each_in_turn(trial, faults.stopped)


@scenario("socket-timeout", requires=("broker.pause",))
def broker_frozen(trial: Trial) -> None:
    """One of three brokers is frozen: the others take over at once, and it is no leader when it continues."""
    trial.start_consumers()
    _start_producer(trial)
    with faults.frozen(trial.random.choice(trial.cluster.brokers)):
        _expect_all_settled(trial)
        trial.hold(FROZEN, quick=FROZEN_QUICK)
    trial.healed()


@scenario("min-insync-replicas", requires=("broker.stop",))
def brokers_fewer_than_min_insync_replicas(trial: Trial) -> None:
    """Two of three brokers are stopped: no message is reported as delivered until one of them is back."""
    trial.start_consumers()
    producer = _start_producer(trial, LONG_LOAD_SECONDS)
    first, second = trial.random.sample(trial.cluster.brokers, 2)
    with faults.stopped(first), faults.stopped(second):
        delivered = trial.delivered(producer)
        trial.expect(lambda: trial.not_ready(producer), "/ready of the producer fails", UNREADY_TIMEOUT)
        if more := trial.delivered(producer) - delivered:
            trial.failures.append(f"{more:.0f} messages reported as delivered that only one broker has")
    trial.healed()


@scenario("acks-all", requires=("broker.kill", "broker.pause"))
def broker_killed_before_replication(trial: Trial) -> None:
    """A broker is killed while the others are frozen: what it alone had is lost there, and was not acknowledged."""
    trial.start_consumers()
    _start_producer(trial)
    first, *others = trial.random.sample(trial.cluster.brokers, 3)
    with ExitStack() as outage:
        with ExitStack() as freeze:
            for broker in others:
                freeze.enter_context(faults.frozen(broker))
            trial.hold(BEFORE_REPLICATION)
            outage.enter_context(faults.killed(first))
        _expect_all_settled(trial)
    trial.healed()


def _each_in_turn(trial: Trial, fault: Callable[[Server], faults.Fault]) -> None:
    trial.start_consumers()
    for broker in trial.random.sample(trial.cluster.brokers, len(trial.cluster.brokers)):
        _start_producer(trial)
        with fault(broker):
            _expect_all_settled(trial)
        trial.wait_for(trial.admin.in_sync, f"all replicas are in sync after {broker.name}", IN_SYNC_TIMEOUT)
        trial.admin.elect_preferred_leaders()


def _start_producer(trial: Trial, seconds: float = LOAD_SECONDS) -> Child:
    """Returns when it has delivered messages, at a time that the seed determines."""
    trial.repeats_allowed = True  # an unconfirmed dead letter may have been written
    producer = trial.start_producer(mixed(trial.messages, trial.random, invalid=0.01), seconds=seconds)
    trial.processes.allow_exit(producer, 0, 1)  # undelivered messages are resent at the end
    trial.wait_for(lambda: trial.delivered(producer), f"{producer.name} has delivered messages")
    trial.hold(trial.random.uniform(0, LOAD_SECONDS / 4))
    return producer


def _expect_all_settled(trial: Trial) -> None:
    trial.expect(trial.all_settled, "all messages are settled by the other brokers", SETTLED_TIMEOUT)
