"""Hours, and a fault each minute."""

import time
from collections.abc import Callable, Iterator, Sequence
from random import Random

from chaos import faults
from chaos.load import mixed
from chaos.measures import Growth, sample
from chaos.plan import SESSION_TIMEOUT
from chaos.scenarios.scenario import scenario
from chaos.trial import Trial
from local.children import Child

RATE = 500  # messages a second
AWAY, FROZEN, ASLEEP = 5.0, 15.0, SESSION_TIMEOUT + 4  # seconds
LOOK_EVERY = 5.0
GAUGES = {"memory": "process_resident_memory_bytes", "files": "process_open_fds"}

Fault = Callable[[Trial], None]


@scenario("identity", needs=("kafka.kill", "kafka.pause", "mongodb", "mongodb.kill", "mongodb.pause"))
def soak(trial: Trial) -> None:
    """500 messages a second for an hour, or --minutes; something fails each minute, and what lives on may not grow."""
    trial.repeats = True
    lasting = trial.group()[:2]
    seconds = trial.options.minutes * 60
    producer = trial.produce(mixed(RATE * seconds, trial.random, broken=0.01), seconds=seconds)
    trial.processes.may_end(producer, 0, 1)  # what had to be kept is sent again at the end
    growths = _gauged([producer, *lasting])
    coming = _in_rounds(trial.random)
    began = time.monotonic()
    for minute in range(1, trial.options.minutes + 1):
        next(coming)(trial)
        while time.monotonic() < began + 60 * minute:
            trial.hold(LOOK_EVERY)
            for (child, gauge), growth in growths.items():
                growth.add(sample(child.port, GAUGES[gauge]))
    trial.healed()
    trial.notes += [f"{child.name} {gauge} {growth}" for (child, gauge), growth in growths.items()]
    trial.broken += [f"{child.name}: {gauge} {growth}" for (child, gauge), growth in growths.items() if not growth.flat]


def _in_rounds(random: Random) -> Iterator[Fault]:
    """Each fault once, in any order, and again: so memory has met the worst of them when it is first measured."""
    while True:
        yield from random.sample(_FAULTS, len(_FAULTS))


def _gauged(children: Sequence[Child]) -> dict[tuple[Child, str], Growth]:
    return {(child, gauge): Growth() for child in children for gauge in GAUGES}


def _consumer_killed(trial: Trial) -> None:
    trial.kill(trial.consumers[-1])
    trial.consumer()


def _consumer_stopped(trial: Trial) -> None:
    trial.stop(trial.consumers[-1])
    trial.consumer()


def _consumer_asleep(trial: Trial) -> None:
    with faults.asleep(trial.consumers[0]):
        trial.hold(ASLEEP)


def _kafka_killed(trial: Trial) -> None:
    with faults.killed(trial.cluster.kafka):
        trial.hold(AWAY)


def _kafka_frozen(trial: Trial) -> None:
    with faults.frozen(trial.cluster.kafka):
        trial.hold(FROZEN)


def _mongodb_killed(trial: Trial) -> None:
    with faults.killed(trial.cluster.mongodb):
        trial.hold(AWAY)


def _mongodb_frozen(trial: Trial) -> None:
    with faults.frozen(trial.cluster.mongodb):
        trial.hold(FROZEN)


_FAULTS: Sequence[Fault] = (
    _consumer_killed,
    _consumer_stopped,
    _consumer_asleep,
    _kafka_killed,
    _kafka_frozen,
    _mongodb_killed,
    _mongodb_frozen,
)
