"""The network between one consumer and Kafka or MongoDB fails."""

from chaos import faults
from chaos.plan import SESSION_TIMEOUT
from chaos.proxy import Proxy
from chaos.scenarios.scenario import scenario
from chaos.trial import Trial

FAULT_SECONDS = SESSION_TIMEOUT + 6  # so that the group reassigns the partitions
LOAD_SECONDS = FAULT_SECONDS + 10


@scenario("deduplication")
def consumer_disconnected_from_kafka(trial: Trial) -> None:
    """The network between one consumer and Kafka is cut or frozen for longer than the session timeout."""
    trial.repeats_allowed = True  # what it dead-lettered and could not commit, others dead-letter again
    network = trial.network_to_kafka()
    consumer = trial.processes.start_consumer(kafka=network)
    trial.start_load(2, seconds=LOAD_SECONDS)
    trial.wait_for_assignment([consumer])
    with _cut_or_frozen(trial, network):
        trial.hold(FAULT_SECONDS)
    trial.healed()
    trial.expect_partitions_lost(consumer)


@scenario("retry-while-unavailable", requires=("mongodb",))
def consumer_disconnected_from_mongodb(trial: Trial) -> None:
    """The network between one consumer and MongoDB is cut or frozen."""
    network = trial.network_to_mongodb()
    consumer = trial.processes.start_consumer(mongodb=network)
    trial.start_load(2, seconds=LOAD_SECONDS)
    trial.wait_for_assignment([consumer])
    with _cut_or_frozen(trial, network):
        trial.expect(lambda: trial.not_ready(consumer), f"/ready of {consumer.name} fails")
        trial.hold(FAULT_SECONDS)
    trial.healed()


def _cut_or_frozen(trial: Trial, network: Proxy) -> faults.Fault:
    return trial.random.choice((faults.network_cut, faults.network_frozen))(network)
