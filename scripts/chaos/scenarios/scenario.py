"""What a scenario is."""

from collections.abc import Callable
from typing import NamedTuple

from chaos.trial import Trial

Attack = Callable[[Trial], None]


class Scenario(NamedTuple):
    """`needs` are what it asks of the servers (chaos/servers.py), `protection` what fails when it is taken out."""

    name: str
    story: str
    attack: Attack
    protection: tuple[str, ...]
    needs: tuple[str, ...] = ()


def scenario(*protection: str, needs: tuple[str, ...] = ()) -> Callable[[Attack], Scenario]:
    """A scenario that is called as its function, and tells its story by the docstring."""

    def describe(attack: Attack) -> Scenario:
        name = attack.__name__.replace("_", "-")
        return Scenario(name, " ".join((attack.__doc__ or "").split()), attack, protection, needs)

    return describe
