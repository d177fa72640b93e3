"""Messages that can't be stored, that come again, or that have another form; and a clock that is wrong."""

from chaos import faults
from chaos.load import mixed, plain, refused, two_versions
from chaos.scenarios.scenario import scenario
from chaos.trial import Trial
from local.children import Child

REPLAYED = 10_000
HOUR = 3600
VALIDATOR = {"name": {"$not": {"$regex": "7$"}}}  # one in ten has such a name


@scenario("parking")
def poison_1_percent(trial: Trial) -> None:
    """One message in a hundred is broken."""
    trial.under_load(load=mixed(trial.messages, trial.random, broken=0.01))


@scenario("parking")
def poison_50_percent(trial: Trial) -> None:
    """Every other message is broken."""
    trial.under_load(load=mixed(trial.messages, trial.random, broken=0.5))


@scenario("storm-breaker")
def poison_100_percent(trial: Trial) -> None:
    """Every message is broken: the consumer holds them, says why, and goes on when it is told to park any share."""
    consumer = trial.consumer()
    trial.joined([consumer])
    trial.produce(mixed(trial.messages, trial.random, broken=1.0))
    trial.sees(lambda: trial.says(consumer, "dead_letter_storm"), "/ready says that there is a dead-letter storm")
    trial.stop(consumer)
    trial.consumer(dead_letter_storm_percent=100)
    trial.healed()


@scenario("parking")
def refused_documents(trial: Trial) -> None:
    """One message in fifty is well-formed, and no store takes it."""
    trial.under_load(load=refused(trial.messages, trial.random))


@scenario("parking", needs=("mongodb",))
def documents_mongodb_refuses(trial: Trial) -> None:
    """MongoDB's own validator refuses one document in ten, each in the midst of a bulk."""
    trial.admin.demand_of_documents(VALIDATOR)
    load = plain(trial.messages, trial.random)
    trial.under_load(load=load.refusing(lambda message: message["name"].endswith("7")))


@scenario("identity")
def duplicates_replayed(trial: Trial) -> None:
    """10,000 messages are sent, and then every one of them again."""
    load = plain(REPLAYED, trial.random)
    trial.under_load(load=load)
    trial.settled()
    trial.produce(load, seconds=5.0)
    trial.healed()


@scenario("unknown-fields")
def two_message_formats(trial: Trial) -> None:
    """Every other message is of a later version: with fields that nobody knows, and without some of today's."""
    trial.under_load(load=two_versions(trial.messages, trial.random))


@scenario("identity")
def clock_set_back(trial: Trial) -> None:
    """Under way a consumer's clock is set back by an hour; then it dies with a batch stored, and nothing committed."""
    trial.consumer()
    wrong = trial.consumer(program=["--clock-back", str(HOUR), "--die", f"stored:{trial.random.randint(1, 5)}"])
    trial.joined(trial.consumers)
    trial.produce()
    trial.some_settled()
    _set_back(trial, wrong)
    trial.dies(wrong)
    trial.healed()
    successor = trial.consumer(program=["--clock-back", str(HOUR)])
    trial.joined([successor])
    _set_back(trial, successor)


def _set_back(trial: Trial, consumer: Child) -> None:
    faults.set_clock_back(consumer)
    trial.sees(lambda: trial.said(consumer, "clock set back"), f"{consumer.name} says that its clock was set back")
