"""The scenarios, in the order in which they are run."""

from chaos.scenarios import (
    brokers,
    consumers,
    disks,
    failovers,
    messages,
    networks,
    outages,
    producers,
    soak,
    topics,
    updates,
)
from chaos.scenarios.scenario import Scenario

ALL: tuple[Scenario, ...] = tuple(
    value
    for module in (consumers, producers, outages, brokers, failovers, networks, messages, updates, topics, disks)
    for value in vars(module).values()
    if isinstance(value, Scenario)
)

ON_REQUEST: tuple[Scenario, ...] = (soak.soak,)
"""Scenarios that take hours."""

PROTECTIONS = tuple(sorted({protection for scenario in ALL for protection in scenario.protections}))
