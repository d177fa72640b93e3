"""Producers die and stop."""

from chaos import faults
from chaos.load import plain
from chaos.measures import sample
from chaos.scenarios.scenario import scenario
from chaos.trial import Stalled, Trial
from local.children import Child


@scenario("identity")
def producer_killed(trial: Trial) -> None:
    """A producer is killed; what it had said to be delivered is there, and its whole input is sent again."""
    trial.group()
    load = plain(trial.messages, trial.random)
    producer = trial.produce(load)
    trial.some_settled()
    trial.sees(lambda: _delivered(producer) > 0, f"{producer.name} says how many messages were delivered")
    told = _delivered(producer)
    trial.kill(producer)
    trial.healed()
    trial.sees(lambda: _in_topic(trial) >= told, f"{told:.0f} messages, as many as it had said to be delivered")
    trial.produce(load)


@scenario("undelivered-file")
def producer_stopped(trial: Trial) -> None:
    """A producer gets SIGTERM while the network to Kafka is silent; what it took is in Kafka, or in its file."""
    trial.group()
    load = plain(trial.messages, trial.random)
    network = trial.network_to_kafka()
    producer = trial.produce(load, kafka=network)
    trial.processes.may_end(producer, 1)
    trial.some_settled()
    with faults.silent(network):
        trial.hold(1.0)
        trial.stop(producer)
    trial.healed()
    trial.accepted = load.first(_taken(trial, producer))


def _delivered(producer: Child) -> float:
    return sample(producer.port, 'producer_messages_total{result="delivered"}')


def _in_topic(trial: Trial) -> int:
    progress = trial.watch.look()
    return sum(progress.ends.values()) if progress else 0


def _taken(trial: Trial, producer: Child) -> int:
    """How many of its lines a producer took that was stopped before it had sent them all."""
    ends = trial.said(producer, "input not sent completely")
    if not ends:
        raise Stalled(f"{producer.name} did not say how much it took")
    return int(ends[-1]["read"])
