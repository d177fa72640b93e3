"""Finds mistakes in the settings without any server: missing files, keys without effect, names that are not read."""

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches

from src.utils.config import ConfigurationError, Variable
from src.utils.secret import ClientSettings

_FILES = (
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.crl.location",
    "ssl.keystore.location",
)
_NO_PATHS = ("", "probe")  # with `probe`, librdkafka looks in the usual places
_OF_THE_OTHER_SERVICE = {"KAFKA_TOPICS"}  # in a file of settings for both, although close to KAFKA_TOPIC
_SIMILARITY = 0.88  # MONGO_URI is close to MONGODB_URI, MONGODB_USER and PRODUCER_BATCH_SIZE are close to nothing


def require_files(client: ClientSettings, origin: str) -> None:
    """Raises ConfigurationError, which names `origin`, and every file of `kafka.client` that cannot be read.

    librdkafka's own error names neither the file nor the reason.
    """
    files = {key: str(client[key]) for key in _FILES if client.get(key, "") not in _NO_PATHS}
    if problems := [f"{key}={path}: {problem}" for key, path in files.items() if (problem := _problem(path))]:
        raise ConfigurationError(f"{origin}: kafka.client: cannot read {', '.join(problems)}")


def warnings_about(variables: Sequence[Variable], client: ClientSettings, environ: Mapping[str, str]) -> list[str]:
    """What is allowed, and probably not intended."""
    return [*_keys_without_effect(client), *_similar_names(variables, environ)]


def _problem(path: str) -> str | None:
    try:
        os.stat(path)
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None if os.access(path, os.R_OK) else os.strerror(errno.EACCES)


def _keys_without_effect(client: ClientSettings) -> Iterator[str]:
    protocol = str(client.get("security.protocol", "plaintext"))
    for prefix, part, values in (("sasl.", "sasl", "SASL_SSL"), ("ssl.", "ssl", "SSL or SASL_SSL")):
        keys = sorted(key for key in client if key.startswith(prefix))
        if keys and part not in protocol.lower():
            yield f"no effect: {', '.join(keys)}, because security.protocol is {protocol}; set it to {values}"


def _similar_names(variables: Sequence[Variable], environ: Mapping[str, str]) -> Iterator[str]:
    names = {variable.name for variable in variables}
    names |= {f"{variable.name}_FILE" for variable in variables if variable.secret}
    for name in sorted(environ.keys() - names - _OF_THE_OTHER_SERVICE):
        if similar := get_close_matches(name.upper(), names, n=1, cutoff=_SIMILARITY):
            yield f"the variable {name} is not read; did you mean {similar[0]}?"
