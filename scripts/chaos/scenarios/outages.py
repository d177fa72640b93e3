"""Kafka or MongoDB is killed, stopped, frozen or slow."""

from collections.abc import Callable

from chaos import faults
from chaos.scenarios.scenario import scenario
from chaos.servers import Server
from chaos.trial import Trial

STOPPED, FROZEN, RESTART = 90.0, 30.0, 5.0  # seconds
STOPPED_QUICK, FROZEN_QUICK = 20.0, 15.0
WRITE_DELAY = 2.0  # seconds


@scenario("undelivered-folder", requires=("kafka.kill",))
def kafka_killed(trial: Trial) -> None:
    """Kafka is killed and restarted."""
    _kafka_outage(trial, faults.killed, RESTART)


@scenario("undelivered-folder", requires=("kafka.stop",))
def kafka_stopped(trial: Trial) -> None:
    """Kafka is stopped for 90 s, longer than the producer's delivery timeout."""
    _kafka_outage(trial, faults.stopped, STOPPED, STOPPED_QUICK)


@scenario("undelivered-folder", requires=("kafka.pause",))
def kafka_frozen(trial: Trial) -> None:
    """Kafka is frozen for 30 s; its connections stay open."""
    _kafka_outage(trial, faults.frozen, FROZEN, FROZEN_QUICK)


@scenario("retry-while-unavailable", requires=("mongodb", "mongodb.kill"))
def mongodb_killed(trial: Trial) -> None:
    """MongoDB is killed and restarted."""
    _mongodb_outage(trial, faults.killed, RESTART)


@scenario("retry-while-unavailable", requires=("mongodb", "mongodb.stop"))
def mongodb_stopped(trial: Trial) -> None:
    """MongoDB is stopped for 90 s, longer than max.poll.interval.ms."""
    _mongodb_outage(trial, faults.stopped, STOPPED, STOPPED_QUICK)


@scenario("retry-while-unavailable", requires=("mongodb", "mongodb.pause"))
def mongodb_frozen(trial: Trial) -> None:
    """MongoDB is frozen for 30 s; its connections stay open."""
    _mongodb_outage(trial, faults.frozen, FROZEN, FROZEN_QUICK)


@scenario("mongodb-timeout", "retry-while-unavailable", requires=("mongodb",))
def mongodb_slow(trial: Trial) -> None:
    """Every write takes 2 s."""
    network = trial.network_to_mongodb()
    trial.start_consumers(mongodb=network)
    with faults.network_slow(network, WRITE_DELAY):
        trial.start_producer()
        trial.wait_for_progress()
        trial.hold(10.0)
    trial.expect(lambda: network.delayed_responses, "a write was slow")
    trial.healed()


@scenario("retry-while-unavailable", requires=("mongodb",))
def mongodb_connection_lost_mid_bulk(trial: Trial) -> None:
    """The connections to MongoDB are lost during a bulk write, or between its completion and the response."""
    network = trial.network_to_mongodb()
    trial.start_consumers(mongodb=network)
    trial.start_producer()
    trial.wait_for_progress()
    for _ in range(3):
        done = network.cut_in_flight(answered=trial.random.random() < 0.7)
        trial.wait_for(done.is_set, "a bulk write is in flight")
    trial.healed()


def _kafka_outage(
    trial: Trial, fault: Callable[[Server], faults.Fault], seconds: float, quick: float | None = None
) -> None:
    trial.repeats_allowed = True  # an unconfirmed dead letter may have been written
    trial.start_load()
    trial.processes.allow_exit(trial.processes.producers[0], 0, 1)  # undelivered messages are resent at the end
    with fault(trial.cluster.kafka):
        trial.hold(seconds, quick=quick)
    trial.healed()


def _mongodb_outage(
    trial: Trial, fault: Callable[[Server], faults.Fault], seconds: float, quick: float | None = None
) -> None:
    trial.start_load()
    with fault(trial.cluster.mongodb):
        trial.expect(lambda: any(map(trial.not_ready, trial.consumers)), "/ready of a consumer fails", 45)
        trial.hold(seconds, quick=quick)
    trial.healed()
