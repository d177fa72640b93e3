"""What happens to topics: the dead-letter topic refuses, the data topic grows, is cut short, or is made again."""

from confluent_kafka import KafkaError

from chaos import faults
from chaos.load import NOTHING, mixed, plain
from chaos.plan import PARTITIONS
from chaos.scenarios.scenario import scenario
from chaos.trial import Trial

GAP = "see consumer.on_offset_gap"
PRODUCE = 0  # Kafka's api key
REFUSALS = 30
MORE_PARTITIONS = PARTITIONS + 3
LONG_SESSION = 30.0  # seconds
TINY, USUAL = 200, 1_100_000  # bytes


@scenario("parking-again", needs=("real kafka", "topics made by hand"))
def dead_letter_topic_missing(trial: Trial) -> None:
    """There is no dead-letter topic; after a while somebody makes it."""
    letters = trial.names.dead_letter_topic
    _delete(trial, letters)
    _work_with_letters(trial)
    trial.sees(lambda: _waits_for_letters(trial), "somebody waits for the dead-letter topic")
    trial.admin.make_topic(letters, 1)
    trial.healed()


@scenario("parking-again", needs=("real kafka",))
def dead_letter_topic_too_small(trial: Trial) -> None:
    """The dead-letter topic takes no letter of that size, until its limit is raised."""
    trial.repeats = True
    trial.admin.set_largest_letter(TINY)
    _work_with_letters(trial)
    trial.sees(lambda: _waits_for_letters(trial), "somebody waits for the dead-letter topic")
    trial.admin.set_largest_letter(USUAL)
    trial.healed()


@scenario("parking-again", needs=("embedded broker",))
def dead_letter_topic_not_authorized(trial: Trial) -> None:
    """Kafka refuses the right to write dead letters, for a while; the messages are all there before."""
    trial.produce(mixed(trial.messages, trial.random, broken=0.05), seconds=1.0)
    trial.produced()
    if trial.cluster.embedded:
        trial.cluster.embedded.fail_next(PRODUCE, *[KafkaError.TOPIC_AUTHORIZATION_FAILED] * REFUSALS)
    trial.group()
    trial.sees(lambda: _waits_for_letters(trial), "somebody waits for the dead-letter topic")
    trial.healed()


@scenario("from-the-beginning", needs=("real kafka",))
def partitions_added(trial: Trial) -> None:
    """The topic gets more partitions while it runs; what is in them first is read too."""
    trial.under_load()
    trial.admin.add_partitions(MORE_PARTITIONS)
    trial.follow(MORE_PARTITIONS)
    trial.produce(plain(trial.messages, trial.random), seconds=1.0)  # by one that knows them from its start
    trial.healed()


@scenario("gap-stop", needs=("real kafka",))
def committed_offset_expired(trial: Trial) -> None:
    """Messages that nobody has read are gone: that is said, those partitions wait, and go on when they are told to."""
    load = plain(trial.messages, trial.random)
    trial.under_load(load=load)
    for consumer in trial.consumers:
        trial.stop(consumer)
    trial.produced()
    trial.accepted = load.first(_expire_unread(trial))  # as many as are left
    consumer = trial.consumer()
    trial.sees(lambda: trial.said(consumer, "committed offset gone"), "the log says that an offset is gone")
    _told_to_go_on(trial)


@scenario("gap-stop", needs=("real kafka", "mongodb"))
def topic_made_again_meanwhile(trial: Trial) -> None:
    """The topic is deleted and made again under running consumers: none of its messages is passed over in silence."""
    trial.group()
    _fill(trial)
    _make_again(trial)
    trial.produce(plain(trial.messages, trial.random), seconds=5.0)
    _told_to_go_on(trial)


@scenario("topic-identity", needs=("real kafka", "mongodb"))
def topic_made_again_longer(trial: Trial) -> None:
    """While a consumer sleeps the topic is made again, and longer than before: its beginning is not passed over."""
    [consumer] = trial.group(1, session=LONG_SESSION)
    _fill(trial)
    with faults.asleep(consumer):
        _make_again(trial)
        trial.produce(plain(trial.messages, trial.random), seconds=1.0)
        trial.produced()
    _told_to_go_on(trial)


def _work_with_letters(trial: Trial) -> None:
    trial.group()
    trial.produce(mixed(trial.messages, trial.random, broken=0.05))


def _expire_unread(trial: Trial) -> int:
    """Of what each partition has unread, the first half is gone; the number of messages that are left."""
    trial.wait(trial.watch.look, "Kafka tells the offsets")
    progress = trial.watch.course.progress
    begins = {p: (progress.committed.get(p, 0) + end + 1) // 2 for p, end in progress.ends.items()}
    trial.admin.expire(begins)
    return sum(end - begins[partition] for partition, end in progress.ends.items())


def _fill(trial: Trial) -> None:
    trial.produce(plain(trial.messages // 2, trial.random), seconds=3.0)
    trial.settled()


def _make_again(trial: Trial) -> None:
    """What came from the old topic stays in the store, and counts for nothing any more."""
    _delete(trial, trial.names.topic)
    trial.admin.make_topic(trial.names.topic, PARTITIONS)
    trial.accepted = NOTHING
    trial.follow(PARTITIONS, anew=True)


def _delete(trial: Trial, topic: str) -> None:
    trial.admin.delete_topic(topic)
    trial.wait(lambda: not trial.admin.has_topic(topic), "the topic is gone")


def _told_to_go_on(trial: Trial) -> None:
    """Some consumer stands still and says so; then all are started again with the setting that goes on."""
    trial.sees(lambda: any(trial.says(one, GAP) for one in trial.consumers), "/ready says that an offset is gone")
    for consumer in trial.consumers:
        trial.stop(consumer)
    consumer = trial.consumer(on_offset_gap="earliest")
    trial.healed()
    trial.sees(lambda: trial.has_committed(consumer), "the partitions that stood still go on")


def _waits_for_letters(trial: Trial) -> bool:
    return any(trial.says(consumer, "dead-letter topic") for consumer in trial.consumers)
