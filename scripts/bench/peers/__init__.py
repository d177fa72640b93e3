"""Consumers by others, each in an environment of its own. They are contenders as `bench.contender` describes them.

Each is configured for throughput as its documentation suggests, and says at the top of its file what it guarantees.
"""

from collections.abc import Sequence

from bench.contender import Contender
from bench.peers import kafka_connect, python
from local.plan import FOLDER

ENVIRONMENTS = FOLDER / "bench"

PEERS: Sequence[Contender] = (
    python.peer("pathway", ENVIRONMENTS, "none", "_id is an ObjectId, metadata is text"),
    python.peer("quixstreams", ENVIRONMENTS, "each message once", "upserts by key, keeps id", on_embedded=False),
    python.peer("faststream", ENVIRONMENTS, "each message once", "batch subscriber with insert_many"),
    kafka_connect.peer(ENVIRONMENTS),
)
