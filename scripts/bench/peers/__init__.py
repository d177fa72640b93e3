"""Consumers by others, each in an environment of its own. They are contenders as `bench.contender` describes them."""

from collections.abc import Sequence

from bench.contender import Contender

PEERS: Sequence[Contender] = ()
