"""Pathway's connectors for Kafka and MongoDB, with nothing between them.

Across a restart it guarantees nothing: the Kafka client commits what has been read, not what has been written. Killed
after 30,574 of 300,000 messages and started again, it stored 49,698 in all and committed the end of the topic.

A document has an ObjectId as `_id`, since a column of that name is not allowed, two more fields (`diff` and `time`),
and `metadata` as text: nested documents cannot be written.
"""

from os import environ

import pathway as pw

MAX_BACKLOG = 50_000
"""Its documentation recommends "a few tens of thousands" for a catch-up; without a limit it reads the whole topic."""
COMMIT_INTERVAL_MS = 100
"""At the default of 1,500 it would wait for the next commit with a full backlog."""


class Message(pw.Schema):
    id: str
    name: str
    created_at: str
    metadata: pw.Json


messages = pw.io.kafka.read(
    {
        "bootstrap.servers": environ["BENCH_BOOTSTRAP"],
        "group.id": environ["BENCH_GROUP"],
        "auto.offset.reset": "earliest",
    },
    topic=environ["BENCH_TOPIC"],
    format="json",
    schema=Message,
    autocommit_duration_ms=COMMIT_INTERVAL_MS,
    max_backlog_size=MAX_BACKLOG,
)
pw.io.mongodb.write(
    messages,
    connection_string=environ["BENCH_MONGODB_URI"],
    database=environ["BENCH_DATABASE"],
    collection=environ["BENCH_COLLECTION"],
    max_batch_size=int(environ["BENCH_BATCH"]),
)
pw.run(monitoring_level=pw.MonitoringLevel.NONE)
