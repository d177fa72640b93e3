"""The connection to MongoDB, and the write concern."""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient, WriteConcern
from pymongo.collection import Collection
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.uri_parser import parse_uri

from src.settings import MongoSettings, StoreUri
from src.utils.config import ConfigurationError
from src.utils.secret import MASK

logger = logging.getLogger(__name__)

# Raw documents are decoded field by field, so that no date is out of range and no `$ref` becomes a reference.
READABLE: CodecOptions[Any] = CodecOptions(
    document_class=RawBSONDocument,
    tz_aware=True,
    unicode_decode_error_handler="replace",
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)
RESPONSE: CodecOptions[dict[str, Any]] = CodecOptions(unicode_decode_error_handler="replace")


def open_collection(settings: MongoSettings) -> Collection[Any]:
    """Does not connect yet. Raises ConfigurationError."""
    client = _client(settings)
    concern = _write_concern(client.write_concern.document)
    if is_weak(concern.document):
        logger.warning(
            "weak write concern: acknowledged writes may be lost",
            extra={
                "write_concern": str(concern.document),
                "reason": "the URI sets less than w=majority and journal=true",
            },
        )
    database = client.get_database(
        settings.database,
        codec_options=READABLE,
        write_concern=concern,
        read_concern=_read_concern(client.read_concern, concern),
    )
    return database.get_collection(settings.collection)


def is_weak(concern: Mapping[str, Any]) -> bool:
    """Whether a write can be lost although the server has acknowledged it."""
    return concern.get("w") != "majority" or not concern.get("j")


def _client(settings: MongoSettings) -> MongoClient[dict[str, Any]]:
    """An option that pymongo would ignore with a warning is an error here."""
    try:
        with _warnings_as_errors():
            return MongoClient(
                settings.uri.reveal(),
                connect=False,
                timeoutMS=settings.timeout_ms,
                serverSelectionTimeoutMS=settings.timeout_ms,  # this and the next are for the calls of a scan,
                socketTimeoutMS=settings.timeout_ms,  # which may take longer as a whole
                retryWrites=False,  # the consumer does, on every server: what is written twice is a duplicate
                appname="kafka-pubsub-consumer",
            )
    except (PyMongoError, ValueError, TypeError, OSError, UserWarning) as error:
        text = _invalid_option(settings.uri) or _without_secrets(settings.uri.reveal(), error)
        raise ConfigurationError(f"mongodb.uri: {text}") from None


@contextmanager
def _warnings_as_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def _invalid_option(uri: StoreUri) -> str | None:
    """The first option that pymongo rejects, and why. Its value is shown only if it is the path of a file."""
    for option in urlsplit(str(uri)).query.split("&"):
        name = option.partition("=")[0]
        try:
            if option and MASK not in option:
                with _warnings_as_errors():
                    parse_uri(f"mongodb://localhost/?{option}")
        except OSError as error:
            return f"cannot read {option}: {os.strerror(error.errno or 0)}"
        except (PyMongoError, ValueError, TypeError, UserWarning) as error:
            unknown = str(error).startswith("Unknown option")
            return f"unknown option {name}" if unknown else f"the value of the option {name} is invalid"
    return None


def _without_secrets(uri: str, error: Exception) -> str:
    """pymongo may split a password at a special character, and show a part of it."""
    if "@" in uri:
        return f"pymongo rejects it ({type(error).__name__}); in user and password, write @ : / ? # % as %XX"
    return str(error)


def _write_concern(given: Mapping[str, Any]) -> WriteConcern:
    """Majority and journaled, except for what the URI sets."""
    if given.get("w") == 0:
        raise ConfigurationError("mongodb.uri: w=0 leaves writes unacknowledged; remove it")
    return WriteConcern(**{"w": "majority", "j": True, **given})


def _read_concern(given: ReadConcern, concern: WriteConcern) -> ReadConcern:
    """Majority, except for what the URI sets: what is read cannot be rolled back. A message that is stored counts as a
    duplicate, and its offset is committed."""
    return given if given.level or concern.document.get("w") != "majority" else ReadConcern("majority")
