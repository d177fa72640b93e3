"""Quix Streams with its MongoDB sink.

It stores each message at least once, and once: the sink writes before the offsets are committed, and replaces the
document that has the message's key as `_id`.
"""

from os import environ
from urllib.parse import urlsplit

from quixstreams import Application
from quixstreams.sinks.community.mongodb import MongoDBSink

server = urlsplit(environ["BENCH_MONGODB_URI"])
application = Application(
    broker_address=environ["BENCH_BOOTSTRAP"],
    consumer_group=environ["BENCH_GROUP"],
    auto_offset_reset="earliest",
    commit_every=int(environ["BENCH_BATCH"]),
    auto_create_topics=False,
    loglevel="WARNING",
)
sink = MongoDBSink(
    host=server.hostname or "localhost",
    port=server.port or 27017,
    username=server.username,
    password=server.password,
    db=environ["BENCH_DATABASE"],
    collection=environ["BENCH_COLLECTION"],
)
topic = application.topic(environ["BENCH_TOPIC"], key_deserializer="str", value_deserializer="json")
application.dataframe(topic).sink(sink)
application.run()
