"""A server dies, stops, freezes, or is slow."""

from chaos import faults
from chaos.scenarios.scenario import scenario
from chaos.trial import Trial

LONG, FROZEN, RESTART = 90.0, 30.0, 5.0  # seconds
LONG_QUICK, FROZEN_QUICK = 20.0, 15.0
SLOW = 2.0  # seconds a write


@scenario("undelivered-file", needs=("kafka.kill",))
def kafka_killed(trial: Trial) -> None:
    """Kafka is killed and started again."""
    _produces_through(trial)
    with faults.killed(trial.cluster.kafka):
        trial.hold(RESTART)
    trial.healed()


@scenario("undelivered-file", needs=("kafka.stop",))
def kafka_stopped(trial: Trial) -> None:
    """Kafka is stopped for 90 s, longer than a producer waits for a delivery."""
    _produces_through(trial)
    with faults.stopped(trial.cluster.kafka):
        trial.hold(LONG, quick=LONG_QUICK)
    trial.healed()


@scenario("undelivered-file", needs=("kafka.pause",))
def kafka_frozen(trial: Trial) -> None:
    """Kafka does not run for 30 s, and keeps its connections."""
    _produces_through(trial)
    with faults.frozen(trial.cluster.kafka):
        trial.hold(FROZEN, quick=FROZEN_QUICK)
    trial.healed()


@scenario("patience", needs=("mongodb", "mongodb.kill"))
def mongodb_killed(trial: Trial) -> None:
    """MongoDB is killed and started again."""
    trial.under_load()
    with faults.killed(trial.cluster.mongodb):
        _not_ready(trial)
        trial.hold(RESTART)
    trial.healed()


@scenario("patience", needs=("mongodb", "mongodb.stop"))
def mongodb_stopped(trial: Trial) -> None:
    """MongoDB is stopped for 90 s, longer than a member may be silent."""
    trial.under_load()
    with faults.stopped(trial.cluster.mongodb):
        _not_ready(trial)
        trial.hold(LONG, quick=LONG_QUICK)
    trial.healed()


@scenario("patience", needs=("mongodb", "mongodb.pause"))
def mongodb_frozen(trial: Trial) -> None:
    """MongoDB does not run for 30 s, and keeps its connections."""
    trial.under_load()
    with faults.frozen(trial.cluster.mongodb):
        _not_ready(trial)
        trial.hold(FROZEN, quick=FROZEN_QUICK)
    trial.healed()


@scenario("time-to-answer", "patience", needs=("mongodb",))
def mongodb_slow(trial: Trial) -> None:
    """Every write takes 2 s."""
    network = trial.network_to_mongodb()
    trial.group(mongodb=network)
    with faults.slow(network, SLOW):
        trial.produce()
        trial.some_settled()
        trial.hold(10.0)
    trial.sees(lambda: network.slowed, "a write was slow")
    trial.healed()


@scenario("patience", needs=("mongodb",))
def mongodb_cut_in_mid_bulk(trial: Trial) -> None:
    """The connections to MongoDB end in the middle of a bulk, or between the bulk and its answer, again and again."""
    network = trial.network_to_mongodb()
    trial.group(mongodb=network)
    trial.produce()
    trial.some_settled()
    for _ in range(3):
        done = network.cut_in_flight(answered=trial.random.random() < 0.7)
        trial.wait(done.is_set, "a bulk is on its way")
    trial.healed()


def _produces_through(trial: Trial) -> None:
    trial.repeats = True  # a letter that was not confirmed may be there
    trial.under_load()
    trial.processes.may_end(trial.processes.producers[0], 0, 1)  # what had to be kept is sent again at the end


def _not_ready(trial: Trial) -> None:
    waits = "a consumer says on /ready that it waits"
    trial.sees(lambda: any(trial.says(one, "") for one in trial.consumers), waits, 45)
