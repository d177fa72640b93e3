"""MongoDB answers as a replica set does in a failover, or as mongos does while a shard is unavailable."""

from collections.abc import Callable

from chaos.plan import SESSION_TIMEOUT
from chaos.replica_set import Failure, ReplicaSet
from chaos.scenarios import updates
from chaos.scenarios.scenario import scenario
from chaos.trial import Trial

LOAD_SECONDS = 30.0
WITHOUT_PRIMARY = 3.0  # seconds
FAULT_SECONDS = 8.0  # longer than the retries of a message that fails alone
ROUND = 300  # messages

STEPPING_DOWN = (
    (10107, "NotWritablePrimary"),
    (189, "PrimarySteppedDown"),
    (11602, "InterruptedDueToReplStateChange"),
    (11600, "InterruptedAtShutdown"),
    (91, "ShutdownInProgress"),
)
UNCONFIRMED = (
    (64, "WriteConcernTimeout"),
    (100, "UnsatisfiableWriteConcern"),
    (189, "PrimarySteppedDown"),
    (11602, "InterruptedDueToReplStateChange"),
)
SHARD_UNAVAILABLE = (
    (6, "HostUnreachable"),
    (70, "ShardNotFound"),
    (82, "NoProgressMade"),
    (133, "FailedToSatisfyReadPreference"),
    (249, "StaleDbVersion"),
    (11602, "InterruptedDueToReplStateChange"),
    (13388, "StaleConfig"),
)

Fault = Callable[[Trial, ReplicaSet, Callable[[], object]], None]
"""The function sends more messages, if they are not sent anyway."""


def _steps_down(trial: Trial, mongodb: ReplicaSet, send: Callable[[], object]) -> None:
    for code, name in trial.random.sample(STEPPING_DOWN, len(STEPPING_DOWN)):
        labels = trial.random.choice(((), ("RetryableWriteError",)))
        written = trial.random.choice((0.0, 0.5, 1.0))
        done = mongodb.step_down(Failure(code, name, written=written, labels=labels))
        send()
        trial.wait_for(done.is_set, f"a write fails with {name}")
        trial.hold(WITHOUT_PRIMARY)
        mongodb.elect(failing_reads=2)
        trial.hold(1.0)


def _fails_writes(trial: Trial, mongodb: ReplicaSet, send: Callable[[], object], failures: list[Failure]) -> None:
    mongodb.fail_writes(failures)
    send()
    trial.wait_for(lambda: mongodb.failed_writes, "a write fails")
    trial.expect(lambda: any(map(trial.not_ready, trial.consumers)), "/ready of a consumer fails")
    trial.hold(FAULT_SECONDS)
    mongodb.heal()


def _is_unconfirmed(trial: Trial, mongodb: ReplicaSet, send: Callable[[], object]) -> None:
    _fails_writes(trial, mongodb, send, [Failure(code, name, "concern") for code, name in UNCONFIRMED])


def _loses_a_shard(trial: Trial, mongodb: ReplicaSet, send: Callable[[], object]) -> None:
    _fails_writes(trial, mongodb, send, [Failure(code, name, "documents") for code, name in SHARD_UNAVAILABLE])


def _rolls_back(trial: Trial, mongodb: ReplicaSet, send: Callable[[], object]) -> None:
    """The ids that a consumer has written are taken when the next one gets its messages, and free again later."""
    mongodb.isolate()
    send()
    trial.wait_for(lambda: mongodb.failed_writes, "the isolated primary gets a write")
    trial.hold(1.0)
    trial.kill(trial.consumers[0])
    trial.hold(SESSION_TIMEOUT + 4)
    mongodb.abdicate()
    trial.hold(WITHOUT_PRIMARY)
    mongodb.elect()


def _insert(trial: Trial, fault: Fault) -> None:
    mongodb = trial.replica_set()
    trial.start_consumers(mongodb=mongodb)
    trial.start_producer(seconds=LOAD_SECONDS)
    trial.wait_for_progress()
    fault(trial, mongodb, lambda: None)
    trial.healed()


def _update(trial: Trial, fault: Fault, mode: str, deleted: float = 0.0) -> None:
    mongodb = trial.replica_set()
    trial.processes.document = updates.document_settings(mode)
    trial.start_consumers(mongodb=mongodb)
    sent: list[updates.Update] = []

    def send() -> None:
        sent.extend(updates.produce(trial, ROUND, deleted))

    send()
    fault(trial, mongodb, send)
    trial.healed()
    send()
    trial.wait_until_settled()
    updates.expect_documents(trial, sent, mode)


@scenario("retry-while-unavailable", requires=("mongodb",))
def mongodb_steps_down(trial: Trial) -> None:
    """MongoDB's primary steps down five times, before, in or after a bulk write; then there is none for 3 s."""
    _insert(trial, _steps_down)


@scenario("retry-while-unavailable", requires=("mongodb",))
def mongodb_steps_down_replace(trial: Trial) -> None:
    """The same while messages replace documents."""
    _update(trial, _steps_down, "replace")


@scenario("retry-while-unavailable", requires=("mongodb",))
def mongodb_steps_down_merge(trial: Trial) -> None:
    """The same while messages are merged into documents, and one in five deletes its document."""
    _update(trial, _steps_down, "merge", deleted=0.2)


@scenario("retry-while-unavailable", requires=("mongodb",))
def mongodb_write_concern_fails(trial: Trial) -> None:
    """MongoDB writes each document, and cannot confirm that a majority has it."""
    _insert(trial, _is_unconfirmed)


@scenario("retry-while-unavailable", requires=("mongodb",))
def mongodb_shard_unavailable(trial: Trial) -> None:
    """mongos writes some documents of each batch; for the others, it reports that their shard is unavailable."""
    _insert(trial, _loses_a_shard)


@scenario("retry-while-unavailable", requires=("mongodb",))
def mongodb_shard_unavailable_merge(trial: Trial) -> None:
    """The same while messages are merged into documents and delete them."""
    _update(trial, _loses_a_shard, "merge", deleted=0.2)


@scenario("majority", "confirmed-writes", requires=("mongodb",))
def mongodb_rolls_back(trial: Trial) -> None:
    """MongoDB's primary loses its majority, and what it has written is rolled back. Meanwhile, a consumer is killed:
    its messages are duplicates for the next one, until they are rolled back."""
    _insert(trial, _rolls_back)


@scenario("majority", "confirmed-writes", requires=("mongodb",))
def mongodb_rolls_back_merge(trial: Trial) -> None:
    """The same while messages are merged into documents and delete them."""
    _update(trial, _rolls_back, "merge", deleted=0.2)
