"""The definition of a scenario."""

from collections.abc import Callable
from typing import NamedTuple

from chaos.trial import Trial


class Scenario(NamedTuple):
    """It requires these features of the servers (chaos/servers.py), and fails without these protections."""

    name: str
    description: str
    run: Callable[[Trial], None]
    protections: tuple[str, ...]
    requires: tuple[str, ...] = ()


def scenario(*protections: str, requires: tuple[str, ...] = ()) -> Callable[[Callable[[Trial], None]], Scenario]:
    """Makes a scenario of a function: its name and docstring are the scenario's name and description."""

    def define(function: Callable[[Trial], None]) -> Scenario:
        name = function.__name__.replace("_", "-")
        return Scenario(name, " ".join((function.__doc__ or "").split()), function, protections, requires)

    return define
