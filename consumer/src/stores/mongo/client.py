"""The connection to MongoDB, and the write concern."""

import logging
import warnings
from collections.abc import Mapping
from typing import Any

from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient, WriteConcern
from pymongo.collection import Collection
from pymongo.errors import PyMongoError

from src.settings import MongoSettings
from src.utils.config import ConfigurationError

logger = logging.getLogger(__name__)

# Raw documents are decoded field by field, so that no date is out of range and no `$ref` becomes a reference.
READABLE: CodecOptions[Any] = CodecOptions(
    document_class=RawBSONDocument,
    tz_aware=True,
    unicode_decode_error_handler="replace",
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)


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
    database = client.get_database(settings.database, codec_options=READABLE, write_concern=concern)
    return database.get_collection(settings.collection)


def is_weak(concern: Mapping[str, Any]) -> bool:
    """Whether a write can be lost although the server has acknowledged it."""
    return concern.get("w") != "majority" or not concern.get("j")


def _client(settings: MongoSettings) -> MongoClient[dict[str, Any]]:
    """An option of which pymongo would only warn, and which it would ignore, is an error here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            return MongoClient(
                settings.uri.reveal(),
                connect=False,
                timeoutMS=settings.timeout_ms,
                serverSelectionTimeoutMS=settings.timeout_ms,  # this and the next are for the calls of a scan,
                socketTimeoutMS=settings.timeout_ms,  # which may take longer as a whole
                appname="kafka-pubsub-consumer",
            )
    except (PyMongoError, ValueError, TypeError, OSError, UserWarning) as error:
        raise ConfigurationError(f"mongodb.uri: {_without_secrets(settings.uri.reveal(), error)}") from None


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
