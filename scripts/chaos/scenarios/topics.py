"""Topics: the dead-letter topic rejects messages; the data topic grows, is truncated, or is recreated."""

from confluent_kafka import KafkaError

from chaos import faults
from chaos.load import NOTHING, mixed, plain
from chaos.plan import PARTITIONS
from chaos.scenarios.scenario import scenario
from chaos.trial import Trial
from local.protocols import PRODUCE

OFFSET_GAP = "see consumer.on_offset_gap"
INJECTED_ERRORS = 30
MORE_PARTITIONS = PARTITIONS + 3
LONG_SESSION = 30.0  # seconds
SMALL_LIMIT, USUAL_LIMIT = 200, 1_100_000  # bytes


@scenario("dead-letter-retry", requires=("real kafka", "no automatic topics"))
def dead_letter_topic_missing(trial: Trial) -> None:
    """There is no dead-letter topic; after a while it is created."""
    topic = trial.names.dead_letter_topic
    trial.admin.delete_topic(topic)
    _start_load(trial)
    _expect_waiting_for_dead_letter_topic(trial)
    trial.admin.recreate_topic(topic, 1)
    trial.healed()


@scenario("dead-letter-retry", requires=("real kafka",))
def dead_letter_topic_too_small(trial: Trial) -> None:
    """The dead letters exceed max.message.bytes of the dead-letter topic, until it is raised."""
    trial.repeats_allowed = True
    trial.admin.limit_dead_letters(SMALL_LIMIT)
    _start_load(trial)
    _expect_waiting_for_dead_letter_topic(trial)
    trial.admin.limit_dead_letters(USUAL_LIMIT)
    trial.healed()


@scenario("dead-letter-retry", requires=("embedded broker",))
def dead_letter_topic_not_authorized(trial: Trial) -> None:
    """For a while Kafka returns an authorization error to dead letters; all messages were produced before."""
    trial.start_producer(mixed(trial.messages, trial.random, invalid=0.05), seconds=1.0)
    trial.wait_until_produced()
    if trial.cluster.embedded:
        trial.cluster.embedded.fail_next(PRODUCE, *[KafkaError.TOPIC_AUTHORIZATION_FAILED] * INJECTED_ERRORS)
    trial.start_consumers()
    _expect_waiting_for_dead_letter_topic(trial)
    trial.healed()


@scenario("start-at-earliest", requires=("real kafka",))
def partitions_added(trial: Trial) -> None:
    """Partitions are added under load; their first messages are read too."""
    trial.start_load()
    trial.admin.add_partitions(MORE_PARTITIONS)
    trial.follow_topic(MORE_PARTITIONS)
    trial.start_producer(plain(trial.messages, trial.random), seconds=1.0)  # one that knows all partitions at its start
    trial.healed()


@scenario("stop-on-offset-gap", requires=("real kafka",))
def committed_offset_expired(trial: Trial) -> None:
    """Retention deletes unread messages: the consumer reports it and stops those partitions until it may continue."""
    load = plain(trial.messages, trial.random)
    trial.start_load(load=load)
    for consumer in trial.consumers:
        trial.stop(consumer)
    trial.wait_until_produced()
    trial.accepted = load.first(_delete_unread(trial))  # the remaining number
    consumer = trial.processes.start_consumer()
    trial.expect(
        lambda: trial.logged(consumer, "committed offset no longer exists"), "the log reports the missing offset"
    )
    _continue_after_gap(trial)


@scenario("stop-on-offset-gap", requires=("real kafka", "mongodb"))
def topic_recreated_while_running(trial: Trial) -> None:
    """The topic is recreated under running consumers: none of its messages is skipped silently."""
    trial.start_consumers()
    _produce_and_settle(trial)
    _recreate(trial)
    trial.start_producer(plain(trial.messages, trial.random), seconds=5.0)
    _continue_after_gap(trial)


@scenario("topic-id-check", requires=("real kafka", "mongodb"))
def topic_recreated_while_frozen(trial: Trial) -> None:
    """While a consumer is frozen the topic is recreated with more messages: the first ones are not skipped."""
    [consumer] = trial.start_consumers(1, session=LONG_SESSION)
    _produce_and_settle(trial)
    with faults.frozen_process(consumer):
        _recreate(trial)
        trial.start_producer(plain(trial.messages, trial.random), seconds=1.0)
        trial.wait_until_produced()
    _continue_after_gap(trial)


def _start_load(trial: Trial) -> None:
    trial.start_consumers()
    trial.start_producer(mixed(trial.messages, trial.random, invalid=0.05))


def _delete_unread(trial: Trial) -> int:
    """Delete the first half of each partition's unread messages; the number of messages that are left."""
    trial.wait_for(trial.watcher.read, "Kafka returns the offsets")
    progress = trial.watcher.history.progress
    start = {p: (progress.committed.get(p, 0) + end + 1) // 2 for p, end in progress.end.items()}
    trial.admin.delete_records(start)
    return sum(end - start[partition] for partition, end in progress.end.items())


def _produce_and_settle(trial: Trial) -> None:
    trial.start_producer(plain(trial.messages // 2, trial.random), seconds=3.0)
    trial.wait_until_settled()


def _recreate(trial: Trial) -> None:
    """Messages of the old topic stay in the store, and are no longer expected anywhere."""
    trial.admin.delete_topic(trial.names.topic)
    trial.admin.recreate_topic(trial.names.topic, PARTITIONS)
    trial.accepted = NOTHING
    trial.follow_topic(PARTITIONS, recreated=True)


def _continue_after_gap(trial: Trial) -> None:
    """A consumer reports the gap; then one is started that is allowed to continue at the earliest offset."""
    trial.expect(
        lambda: any(trial.not_ready(consumer, OFFSET_GAP) for consumer in trial.consumers), "/ready names the gap"
    )
    for consumer in trial.consumers:
        trial.stop(consumer)
    consumer = trial.processes.start_consumer(on_offset_gap="earliest")
    trial.healed()
    trial.expect(lambda: trial.has_committed(consumer), "the consumer commits again")


def _expect_waiting_for_dead_letter_topic(trial: Trial) -> None:
    trial.expect(
        lambda: any(trial.not_ready(consumer, "dead-letter topic") for consumer in trial.consumers),
        "/ready names the dead-letter topic",
    )
