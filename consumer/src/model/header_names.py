"""Header names are `str` in this program and may be any bytes in Kafka.

A byte that is not part of valid UTF-8 becomes a lone surrogate (PEP 383, `surrogateescape`). confluent-kafka cannot
send lone surrogates or NUL. A name that contains one is sent as `base64:` followed by its bytes in base64.
"""

import re
from base64 import b64decode, b64encode

_ENCODED = "base64:"
_NOT_SENDABLE = re.compile("[\0\ud800-\udfff]")


def as_text(name: bytes) -> str:
    return name.decode(errors="surrogateescape")


def as_bytes(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


def sendable(name: str) -> str:
    """The name as the client can send it: a lone surrogate would crash the process, a NUL would cut the name."""
    return _ENCODED + b64encode(as_bytes(name)).decode() if _NOT_SENDABLE.search(name) else name


def original(name: str) -> str:
    """Undoes `sendable`. Returns any other name unchanged, even if it starts with `base64:`."""
    if not name.startswith(_ENCODED):
        return name
    try:
        decoded = as_text(b64decode(name.removeprefix(_ENCODED)))
    except ValueError:
        return name
    return decoded if sendable(decoded) == name else name
