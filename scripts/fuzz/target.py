"""What is fed: a target makes inputs by chance, and says what became of them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from fuzz.chance import Chance

Input = TypeVar("Input")


class Wrong(Exception):
    """A promise is broken. The text says which."""


class Target(Protocol, Generic[Input]):
    """Raises whatever should not happen, out of `check`. Each check stands for itself."""

    at_once: int
    """Inputs that are checked together."""

    def make(self, chance: Chance, index: int) -> Input: ...

    def check(self, inputs: Sequence[Input]) -> Counter[str]:
        """The inputs by their outcome: as many as were given."""

    def smaller(self, value: Input) -> Iterable[Input]: ...

    def shown(self, value: Input) -> Mapping[str, Any]:
        """For a JSON file."""

    def close(self) -> None: ...


def require(condition: object, text: str) -> None:
    if not condition:
        raise Wrong(text)
