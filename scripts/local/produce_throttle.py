"""Throttles producers, so that the embedded broker does not drop unread messages.

The broker keeps 5 MiB per partition and silently drops what is older. All connections therefore pass through a relay
that holds Produce requests while the unsettled bytes exceed a window smaller than that. A producer that is too fast
waits, as on a slow network; nothing is rejected.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from local.connectivity import Address
from local.protocols import KafkaProtocol, produces_to, request_correlation_id, response_correlation_id
from local.relay import Connection, Relay

Offsets = Mapping[int, int]  # partition to offset


class Window:
    """How many bytes may pass in total so that at most `size` of them are unsettled. Pure."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._settled = 0
        self._marks: deque[_Mark] = deque()

    @property
    def allowed(self) -> int:
        return self._settled + self._size

    def mark(self, passed: int, end_offsets: Offsets) -> None:
        """The messages in the first `passed` bytes lie below these end offsets."""
        if passed > (self._marks[-1].passed if self._marks else self._settled):
            self._marks.append(_Mark(passed, end_offsets))

    def settle(self, committed: Offsets) -> None:
        """The messages below these offsets are stored or dead-lettered."""
        while self._marks and self._marks[0].is_reached(committed):
            self._settled = self._marks.popleft().passed


class _Mark(NamedTuple):
    passed: int
    end_offsets: Offsets

    def is_reached(self, committed: Offsets) -> bool:
        return all(committed.get(partition, 0) >= end for partition, end in self.end_offsets.items())


class ProduceThrottle(Relay):
    """A relay to the broker that holds Produce requests to `topic` once `allowed` bytes of them have passed."""

    def __init__(self, broker: Address, topic: str, allowed: int) -> None:
        super().__init__(broker, KafkaProtocol, name="produce-throttle", read_ahead=True)
        self.answered = 0
        """Bytes of Produce requests that the broker has answered."""
        self._topic = topic.encode()
        self._allowed = allowed
        self._passed = 0
        self._raised = asyncio.Condition()
        self._unanswered: dict[Connection, dict[bytes, int]] = {}

    def allow(self, allowed: int) -> None:
        """Let this many bytes pass in total."""
        asyncio.run_coroutine_threadsafe(self._raise_limit(allowed), self._loop)

    async def forward(self, connection: Connection, request: bytes) -> None:
        if produces_to(self._topic, request):
            await self._pass(len(request))
            self._unanswered.setdefault(connection, {})[request_correlation_id(request)] = len(request)
        await super().forward(connection, request)

    async def reply(self, connection: Connection, response: bytes) -> None:
        self.answered += self._unanswered.get(connection, {}).pop(response_correlation_id(response), 0)
        await super().reply(connection, response)

    def disconnected(self, connection: Connection) -> None:
        self.answered += sum(self._unanswered.pop(connection, {}).values())

    async def _pass(self, size: int) -> None:
        async with self._raised:
            await self._raised.wait_for(lambda: self._passed + size <= self._allowed)
            self._passed += size

    async def _raise_limit(self, allowed: int) -> None:
        async with self._raised:
            self._allowed = allowed
            self._raised.notify_all()
