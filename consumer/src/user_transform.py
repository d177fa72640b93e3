"""The function `document.transform` of the settings: imported once, and called for every message."""

import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from src.model.errors import InvalidMessage
from src.settings import DocumentSettings
from src.utils.config import ConfigurationError

Message = dict[str, Any]
Transform = Callable[[Message], Message | None]

TRANSFORM_FAILED = "transform_failed"

_REASON = re.compile(r"[A-Za-z0-9_.-]{1,100}")


def load_transform(settings: DocumentSettings) -> Transform | None:
    """None if there is none. Raises ConfigurationError."""
    if not settings.transform:
        return None
    module, _, name = settings.transform.partition(":")
    try:
        function = _checked(getattr(_imported(module, Path(settings.transforms_folder)), name, None))
    except TypeError as error:
        raise ConfigurationError(f"document.transform: {settings.transform}: {name} {error}") from error
    return lambda message: _called(function, settings.transform, message)


def _checked(function: object) -> Callable[[Message], object]:
    """Raises TypeError, which says what is wrong."""
    if function is None:
        raise TypeError("does not exist")
    if not callable(function):
        raise TypeError("is not a function")
    if inspect.iscoroutinefunction(function):
        raise TypeError("is asynchronous; use `def`")
    try:
        inspect.signature(function).bind({})
    except TypeError as error:
        raise TypeError("cannot be called with one argument, the message") from error
    except ValueError:
        pass  # a function of C code without a signature
    return function


def _imported(module: str, folder: Path) -> object:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module or module.startswith(f"{error.name}."):
            text = f"there is no module {module} in {folder}; see document.transforms_folder"
            raise ConfigurationError(f"document.transform: {text}") from error
        raise _cannot_import(module, error) from error
    except (Exception, SystemExit) as error:
        raise _cannot_import(module, error) from error


def _cannot_import(module: str, error: BaseException) -> ConfigurationError:
    return ConfigurationError(f"document.transform: cannot import {module}: {_described(error)}")


def _called(function: Callable[[Message], object], name: str, message: Message) -> Message | None:
    """The function's result. What is wrong about it is the message's fault: it raises InvalidMessage."""
    try:
        result = function(message)
    except InvalidMessage as error:
        if isinstance(error.reason, str) and _REASON.fullmatch(error.reason):
            raise
        text = f"{name} raised InvalidMessage with the reason {error.reason!r}, which is not a short constant"
        raise InvalidMessage(TRANSFORM_FAILED, text) from error
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:
        raise InvalidMessage(TRANSFORM_FAILED, f"{name} raised {_described(error)}") from error
    if result is None or isinstance(result, dict):
        return result
    text = f"{name} returned {type(result).__name__}, and not a dictionary or None"
    raise InvalidMessage(TRANSFORM_FAILED, text)


def _described(error: BaseException) -> str:
    """The last line of the traceback, and where it was raised."""
    [*_, last] = traceback.format_exception_only(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return last.strip() + place
