"""Consumers are killed, stopped, frozen and added."""

from chaos import faults
from chaos.load import mixed
from chaos.plan import SESSION_TIMEOUT
from chaos.scenarios.scenario import scenario
from chaos.trial import Trial

BACKLOG_BATCH = 5_000  # the default of the service; in other scenarios batches are small, so that there are many


@scenario("commit-after-store")
def consumer_killed_mid_batch(trial: Trial) -> None:
    """A consumer is killed when half of a batch is stored."""
    _kill_at(trial, "storing")


@scenario("commit-after-store")
def consumer_killed_in_backlog(trial: Trial) -> None:
    """A consumer with a backlog is killed when half of a batch of thousands is stored."""
    _kill_in_backlog(trial)


@scenario("deduplication")
def consumer_killed_before_commit(trial: Trial) -> None:
    """A consumer is killed when a batch is stored and none of it committed."""
    _kill_at(trial, "stored")


@scenario("dead-letter-confirmation")
def consumer_killed_after_dead_lettering(trial: Trial) -> None:
    """A consumer is killed when dead letters are confirmed and their offsets not committed."""
    _kill_at(trial, "dead-lettered", invalid=0.1)


@scenario("commit-after-store", "collection-by-topic")
def consumer_of_two_topics_killed(trial: Trial) -> None:
    """A consumer with a backlog of two topics is killed when half of a batch is stored, in two collections."""
    second = trial.add_topic()
    trial.start_producer(seconds=2, topic=second)
    _kill_in_backlog(trial)


@scenario("commit-on-revoke", "deduplication")
def consumer_stopped(trial: Trial) -> None:
    """A consumer gets SIGTERM under load, and another one is started."""
    trial.start_consumers(2)
    stopped = trial.processes.start_consumer(offset_commit_frequency_ms=60_000)  # so that it has offsets to commit
    trial.wait_for_assignment(trial.consumers)
    trial.start_producer()
    trial.wait_for_progress()
    trial.stop(stopped)
    trial.healed()
    trial.processes.start_consumer()


@scenario("assignment-numbers")
def consumer_frozen(trial: Trial) -> None:
    """A consumer is frozen for longer than its session timeout, and then continues."""
    trial.repeats_allowed = True  # what it dead-lettered and could not commit, others dead-letter again
    consumers = trial.start_load(seconds=2 * (SESSION_TIMEOUT + 4))
    consumer = trial.random.choice(consumers)
    with faults.frozen_process(consumer):
        trial.hold(SESSION_TIMEOUT + 4)
    trial.healed()
    trial.expect_partitions_lost(consumer)


@scenario("assignment-numbers", "deduplication")
def consumer_stalled(trial: Trial) -> None:
    """A consumer's loop stalls for longer than max.poll.interval.ms with offsets to commit, and then continues."""
    trial.repeats_allowed = True  # what it dead-lettered and could not commit, others dead-letter again
    options = ["--kill-at", f"stalling:{trial.random.randint(3, 15)}"]
    consumer = trial.processes.start_consumer(max_poll=SESSION_TIMEOUT, options=options)
    trial.start_load(2, seconds=2 * (SESSION_TIMEOUT + 4))
    trial.expect(lambda: trial.logged(consumer, "continued"), f"{consumer.name} continues")
    trial.healed()
    trial.expect_partitions_lost(consumer)


@scenario("commit-on-revoke", "deduplication")
def consumers_join_and_leave(trial: Trial) -> None:
    """Every few seconds a consumer is added, stopped or killed."""
    trial.start_load()
    for _ in range(4):
        _add_or_remove(trial)
        trial.hold(trial.random.uniform(1.0, 3.0))
    trial.healed()


def _kill_in_backlog(trial: Trial) -> None:
    trial.start_producer(seconds=2)
    trial.wait_until_produced()
    options = ["--kill-at", f"storing:{trial.random.randint(1, 2)}"]
    victim = trial.processes.start_consumer(batch_size=BACKLOG_BATCH, options=options)
    trial.wait_until_killed(victim)
    trial.healed()
    trial.processes.start_consumer(batch_size=BACKLOG_BATCH)


def _kill_at(trial: Trial, point: str, invalid: float = 0.01) -> None:
    trial.processes.start_consumer()
    victim = trial.processes.start_consumer(options=["--kill-at", f"{point}:{trial.random.randint(3, 15)}"])
    trial.wait_for_assignment(trial.consumers)
    trial.start_producer(mixed(trial.messages, trial.random, invalid=invalid))
    trial.wait_until_killed(victim)
    trial.healed()
    trial.processes.start_consumer()


def _add_or_remove(trial: Trial) -> None:
    running = [consumer for consumer in trial.consumers if consumer.exit_code is None]
    action = trial.random.choice(("add", "stop", "kill")) if len(running) > 1 else "add"
    if action == "add":
        trial.processes.start_consumer()
    elif action == "stop":
        trial.stop(trial.random.choice(running))
    else:
        trial.kill(trial.random.choice(running))
