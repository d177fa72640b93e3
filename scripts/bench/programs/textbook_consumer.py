"""The consumer of the tutorials: one message at a time, decoded, inserted and committed."""

import json
from contextlib import suppress

from pymongo.errors import DuplicateKeyError

from bench.programs.common import collection, consumer, stop_on_sigterm

POLL_TIMEOUT = 0.1  # seconds


def main() -> None:
    stop, source, target = stop_on_sigterm(), consumer(), collection()
    while not stop.is_set():
        message = source.poll(POLL_TIMEOUT)
        if message is None or message.error():
            continue
        document = json.loads(message.value() or b"")
        document["_id"] = document.pop("id")
        with suppress(DuplicateKeyError):
            target.insert_one(document)
        source.commit(message=message)


if __name__ == "__main__":
    main()
