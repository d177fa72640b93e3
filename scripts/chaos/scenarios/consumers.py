"""Consumers die, sleep, come and go."""

from chaos import faults
from chaos.load import mixed
from chaos.plan import SESSION_TIMEOUT
from chaos.scenarios.scenario import scenario
from chaos.trial import Trial


@scenario("commit-after-store")
def consumer_killed_in_mid_batch(trial: Trial) -> None:
    """A consumer is killed with half of a batch stored."""
    _dies_at(trial, "storing")


@scenario("identity")
def consumer_killed_before_commit(trial: Trial) -> None:
    """A consumer is killed with a batch stored, and nothing of it committed."""
    _dies_at(trial, "stored")


@scenario("confirmed-parking")
def consumer_killed_after_parking(trial: Trial) -> None:
    """A consumer is killed with dead letters confirmed, and their offsets not committed."""
    _dies_at(trial, "parked", broken=0.1)


@scenario("commit-on-revoke", "identity")
def consumer_stopped(trial: Trial) -> None:
    """A consumer gets SIGTERM in the midst of the load, and another takes its place."""
    consumers = trial.under_load()
    trial.stop(trial.random.choice(consumers))
    trial.healed()
    trial.consumer()


@scenario("assignment-numbers")
def consumer_asleep(trial: Trial) -> None:
    """A consumer does not run for longer than its session, and then goes on as if nothing had been."""
    trial.repeats = True  # what it parked and could not commit, others park again
    consumers = trial.under_load(seconds=2 * (SESSION_TIMEOUT + 4))
    sleeper = trial.random.choice(consumers)
    with faults.asleep(sleeper):
        trial.hold(SESSION_TIMEOUT + 4)
    trial.healed()
    trial.loses_partitions(sleeper)


@scenario("commit-on-revoke", "identity")
def consumers_come_and_go(trial: Trial) -> None:
    """Every few seconds a consumer is added, or one is stopped or killed."""
    trial.under_load()
    for _ in range(4):
        _change(trial)
        trial.hold(trial.random.uniform(1.0, 3.0))
    trial.healed()


def _dies_at(trial: Trial, point: str, broken: float = 0.01) -> None:
    trial.consumer()
    victim = trial.consumer(program=["--die", f"{point}:{trial.random.randint(3, 15)}"])
    trial.joined(trial.consumers)
    trial.produce(mixed(trial.messages, trial.random, broken=broken))
    trial.dies(victim)
    trial.healed()
    trial.consumer()


def _change(trial: Trial) -> None:
    running = [consumer for consumer in trial.consumers if consumer.exit_code is None]
    act = trial.random.choice(("add", "stop", "kill")) if len(running) > 1 else "add"
    if act == "add":
        trial.consumer()
    elif act == "stop":
        trial.stop(trial.random.choice(running))
    else:
        trial.kill(trial.random.choice(running))
