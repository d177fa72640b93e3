"""Values that must not be shown: passwords, keys, and what contains them."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

MASK = "***"

Plain = str | int | float | bool

# librdkafka keys with values that are or may contain credentials.
_SECRET_KEY = re.compile(
    r"password|passphrase|secret|username|key\.pem|ssl_key|jaas|kinit\.cmd|oauthbearer\.(config|extensions)"
)


def read_secret(path: Path) -> str:
    """The secret in a file, without the line end that an editor appends. Raises OSError or ValueError."""
    text = path.read_bytes().decode("utf-8")
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret.strip():
        raise ValueError("the file is empty; write the secret into it")
    return secret


class Secret:
    """A text that is shown as `***` wherever it is printed, formatted, logged, pickled or serialized.

    `reveal()` returns the text itself: call it only where a client is created, or connects again.
    """

    __slots__ = ("_file", "_value")

    def __init__(self, value: str) -> None:
        self._value = value
        self._file: Path | None = None

    @classmethod
    def decode(cls, value: object) -> Self:
        """The value of a configuration file. No error text contains it."""
        if not isinstance(value, str):
            raise TypeError(f"Expected `str`, got `{type(value).__name__}`")
        return cls(value)

    def in_file(self, file: Path) -> Self:
        """The same secret, which was read from this file, and may be renewed there."""
        secret = type(self)(self._value)
        secret._file = file
        return secret

    def reveal(self) -> str:
        """The text. For a secret in a file: its current content, or the initial one if the current one is invalid."""
        if self._file is None:
            return self._value
        try:
            return type(self)(read_secret(self._file))._value
        except (OSError, ValueError):
            return self._value

    def __str__(self) -> str:
        return MASK

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        """A pickle contains the mask: it may end up in a log or on a disk."""
        return type(self), (str(self),)


class ClientSettings(Mapping[str, Plain | Secret]):
    """librdkafka keys and their values; the values of credentials are Secrets."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Plain | Secret] = {}) -> None:
        self._values = {key: _hidden(value) if _SECRET_KEY.search(key) else value for key, value in values.items()}

    @classmethod
    def decode(cls, value: object) -> Self:
        """The section of a configuration file. No error text contains its values."""
        if not isinstance(value, Mapping):
            raise TypeError(f"Expected `object`, got `{type(value).__name__}`")
        for key, each in value.items():
            if not isinstance(each, Plain | Secret):
                raise TypeError(f"Expected `str`, `int`, `float` or `bool` for `{key}`, got `{type(each).__name__}`")
        return cls(value)

    def reveal(self) -> dict[str, Plain]:
        """The values that a Kafka client is created with. Do not log them."""
        return {key: value.reveal() if isinstance(value, Secret) else value for key, value in self._values.items()}

    def __getitem__(self, key: str) -> Plain | Secret:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._values!r})"

    def __hash__(self) -> int:
        return hash(frozenset(self._values.items()))


def _hidden(value: Plain | Secret) -> Secret:
    return value if isinstance(value, Secret) else Secret(str(value))
