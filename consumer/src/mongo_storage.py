"""A store in MongoDB: the one place that speaks to it."""

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

import pymongo
from bson import DatetimeMS
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient, ReadPreference, WriteConcern
from pymongo.collection import Collection
from pymongo.errors import (
    BulkWriteError,
    DocumentTooLarge,
    ExecutionTimeout,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
)

from src.document import Document, StoredMessage
from src.errors import StorageUnavailable
from src.query import LOGICAL, Query, Sort, UnsupportedQuery
from src.settings import MongoSettings
from src.utils.config import ConfigurationError
from src.verdict import KEY_TAKEN, STORED, Outcome, Verdict
