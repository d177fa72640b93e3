"""One consumer is cut off, from Kafka or from MongoDB."""

from collections.abc import Callable

from chaos import faults
from chaos.plan import SESSION_TIMEOUT
from chaos.proxy import Proxy
from chaos.scenarios.scenario import scenario
from chaos.trial import Trial

LONG_ENOUGH = SESSION_TIMEOUT + 6  # seconds, so that the group gives the partitions to others
LOAD = LONG_ENOUGH + 10


@scenario("identity")
def consumer_cut_from_kafka(trial: Trial) -> None:
    """The network between one consumer and Kafka is cut, or silent, for longer than its session."""
    trial.repeats = True  # what it parked and could not commit, others park again
    network = trial.network_to_kafka()
    cut_off = trial.consumer(kafka=network)
    trial.under_load(2, seconds=LOAD)
    trial.joined([cut_off])
    with _any(trial)(network):
        trial.hold(LONG_ENOUGH)
    trial.healed()
    trial.loses_partitions(cut_off)


@scenario("patience", needs=("mongodb",))
def consumer_cut_from_mongodb(trial: Trial) -> None:
    """The network between one consumer and MongoDB is cut, or silent."""
    network = trial.network_to_mongodb()
    cut_off = trial.consumer(mongodb=network)
    trial.under_load(2, seconds=LOAD)
    trial.joined([cut_off])
    with _any(trial)(network):
        trial.sees(lambda: trial.says(cut_off, ""), f"{cut_off.name} says on /ready that it waits")
        trial.hold(LONG_ENOUGH)
    trial.healed()


def _any(trial: Trial) -> Callable[[Proxy], faults.Fault]:
    return trial.random.choice((faults.cut, faults.silent))
