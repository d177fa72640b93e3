"""MongoDB's sink in Kafka Connect standalone, with JSON values without schemas.

It stores each message at least once, and once: Kafka Connect commits offsets after the sink has written, and the sink
replaces the document that has the message's id as `_id`.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import STDOUT, run

from bench.contender import Contender, Job
from local.errors import CannotRun

POM = Path(__file__).resolve().parent / "kafka-connect" / "pom.xml"
STANDALONE = "org.apache.kafka.connect.cli.ConnectStandalone"

# Those of Kafka's start script for Connect.
JVM = ("-Xms256M", "-Xmx2G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:+ExplicitGCInvokesConcurrent")


def peer(environments: Path) -> Contender:
    jars = environments / "kafka-connect"

    def command(job: Job, folder: Path) -> Sequence[str]:
        files = write(folder / "worker.properties", worker(job, folder)), write(folder / "sink.properties", sink(job))
        level = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        return ["java", *JVM, level, "-cp", f"{jars}/*", STANDALONE, *map(str, files)]

    return Contender(
        "kafka-connect",
        command,
        batches=(5_000,),
        prepare=lambda: install(jars),
        on_embedded=False,
        guarantee="each message once",
        note="MongoDB's sink 2.0.1 in Kafka Connect 3.9.2; upserts by id",
    )


def worker(job: Job, folder: Path) -> Mapping[str, object]:
    return {
        "bootstrap.servers": job.bootstrap,
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter.schemas.enable": "false",
        "consumer.auto.offset.reset": "earliest",
        "consumer.max.poll.records": job.batch,
        "offset.storage.file.filename": folder / "offsets",  # required, but only sources use it
        "listeners": "http://127.0.0.1:0",
        "plugin.discovery": "only_scan",  # MongoDB's has no manifest
    }


def sink(job: Job) -> Mapping[str, object]:
    """A bulk write has all messages of a poll, in any order; `id` becomes `_id`."""
    return {
        "name": job.group,  # the consumer group is connect-NAME
        "connector.class": "com.mongodb.kafka.connect.MongoSinkConnector",
        "tasks.max": 1,
        "topics": job.topic,
        "connection.uri": job.mongodb_uri,
        "database": job.database,
        "collection": job.collection,
        "transforms": "id",
        "transforms.id.type": "org.apache.kafka.connect.transforms.ReplaceField$Value",
        "transforms.id.renames": "id:_id",
        "document.id.strategy": "com.mongodb.kafka.connect.sink.processor.id.strategy.ProvidedInValueStrategy",
        "document.id.strategy.overwrite.existing": "true",  # or it warns about the `_id` of each message
        "bulk.write.ordered": "false",
    }


def write(path: Path, properties: Mapping[str, object]) -> Path:
    """A file that only the user can read: a MongoDB URI may contain a password."""
    path.touch(mode=0o600)
    path.write_text("".join(f"{name}={value}\n" for name, value in properties.items()), encoding="utf-8")
    return path


def install(jars: Path) -> None:
    """Raises CannotRun. Does nothing if the same jars have been copied before."""
    if not (shutil.which("java") and shutil.which("mvn")):
        raise CannotRun("Java 11 or newer and Maven are not installed")
    stamp, wanted = jars / "complete.stamp", POM.read_text(encoding="utf-8")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    shutil.rmtree(jars, ignore_errors=True)
    jars.mkdir(parents=True)
    options = ("-DincludeScope=runtime", f"-DoutputDirectory={jars}")
    with (jars / "mvn.log").open("wb") as log:
        copied = run(
            ["mvn", "-B", "-q", "-f", str(POM), "dependency:copy-dependencies", *options],
            stdout=log,
            stderr=STDOUT,
            check=False,
        )
    if copied.returncode:
        raise CannotRun(f"its jars cannot be copied from a Maven repository; see {log.name}")
    stamp.write_text(wanted, encoding="utf-8")
