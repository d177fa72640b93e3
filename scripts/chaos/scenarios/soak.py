"""Hours of load, with one fault per minute."""

import time
from collections.abc import Callable, Iterator, Sequence
from random import Random

from chaos import faults
from chaos.load import mixed
from chaos.measurements import Growth, metric
from chaos.plan import SESSION_TIMEOUT
from chaos.scenarios.scenario import scenario
from chaos.trial import Trial

RATE = 500  # messages per second
RESTART, SERVER_FROZEN, CONSUMER_FROZEN = 5.0, 15.0, SESSION_TIMEOUT + 4  # seconds
SAMPLE_INTERVAL = 5.0
GAUGES = {"memory": "process_resident_memory_bytes", "files": "process_open_fds"}


@scenario("deduplication", requires=("kafka.kill", "kafka.pause", "mongodb", "mongodb.kill", "mongodb.pause"))
def soak(trial: Trial) -> None:
    """500 messages per second and a fault each minute, for an hour or --minutes; surviving processes must not grow."""
    trial.repeats_allowed = True
    surviving = trial.start_consumers()[:2]
    seconds = trial.options.minutes * 60
    producer = trial.start_producer(mixed(RATE * seconds, trial.random, invalid=0.01), seconds=seconds)
    trial.processes.allow_exit(producer, 0, 1)  # undelivered messages are resent at the end
    growths = {(child, gauge): Growth() for child in (producer, *surviving) for gauge in GAUGES}
    injections = _rounds(trial.random)
    began = time.monotonic()
    for minute in range(1, trial.options.minutes + 1):
        next(injections)(trial)
        while time.monotonic() < began + 60 * minute:
            trial.hold(SAMPLE_INTERVAL)
            for (child, gauge), growth in growths.items():
                growth.add(metric(child.port, GAUGES[gauge]))
    trial.healed()
    trial.notes += [f"{child.name} {gauge} {growth}" for (child, gauge), growth in growths.items()]
    trial.failures += [f"{child.name}: {gauge} {each}" for (child, gauge), each in growths.items() if not each.flat]


def _rounds(random: Random) -> Iterator[Callable[[Trial], None]]:
    """Each fault once in random order, and again: memory has seen all of them before it is first measured."""
    while True:
        yield from random.sample(_INJECTIONS, len(_INJECTIONS))


def _kill_consumer(trial: Trial) -> None:
    trial.kill(trial.consumers[-1])
    trial.processes.start_consumer()


def _stop_consumer(trial: Trial) -> None:
    trial.stop(trial.consumers[-1])
    trial.processes.start_consumer()


def _during(fault: Callable[[Trial], faults.Fault], seconds: float) -> Callable[[Trial], None]:
    def inject(trial: Trial) -> None:
        with fault(trial):
            trial.hold(seconds)

    return inject


_INJECTIONS: Sequence[Callable[[Trial], None]] = (
    _kill_consumer,
    _stop_consumer,
    _during(lambda trial: faults.frozen_process(trial.consumers[0]), CONSUMER_FROZEN),
    _during(lambda trial: faults.killed(trial.cluster.kafka), RESTART),
    _during(lambda trial: faults.frozen(trial.cluster.kafka), SERVER_FROZEN),
    _during(lambda trial: faults.killed(trial.cluster.mongodb), RESTART),
    _during(lambda trial: faults.frozen(trial.cluster.mongodb), SERVER_FROZEN),
)
