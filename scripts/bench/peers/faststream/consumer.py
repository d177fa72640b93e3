"""FastStream with a batch subscriber and MongoDB's asynchronous driver.

It stores each message at least once: the offsets of a batch are committed when it is stored, and it is read again
otherwise. A message that arrives twice is a duplicate key, which fails the batch for good, hence the one `except`.
"""

import asyncio
from os import environ
from typing import Any

from faststream import AckPolicy, FastStream
from faststream.confluent import KafkaBroker
from pymongo import AsyncMongoClient
from pymongo.errors import BulkWriteError

DUPLICATE_KEY = 11000

broker = KafkaBroker(environ["BENCH_BOOTSTRAP"], allow_auto_create_topics=False, logger=None)  # the topic exists
client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(environ["BENCH_MONGODB_URI"])
collection = client[environ["BENCH_DATABASE"]][environ["BENCH_COLLECTION"]]


@broker.subscriber(
    environ["BENCH_TOPIC"],
    group_id=environ["BENCH_GROUP"],
    auto_offset_reset="earliest",
    batch=True,
    max_records=int(environ["BENCH_BATCH"]),
    ack_policy=AckPolicy.NACK_ON_ERROR,
)
async def store(messages: list[dict[str, Any]]) -> None:
    for message in messages:
        message["_id"] = message.pop("id")
    try:
        await collection.insert_many(messages, ordered=False)
    except BulkWriteError as error:
        if any(each["code"] != DUPLICATE_KEY for each in error.details["writeErrors"]):
            raise


asyncio.run(FastStream(broker).run())
