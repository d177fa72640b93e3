"""`python -m fuzz.producer`: feeds one target of the producer."""

import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from fuzz.producer.configurations import Configurations
from fuzz.producer.lines import Lines
from fuzz.producer.undelivered import UndeliveredMessages
from fuzz.target import Target
from fuzz.worker import main

if __name__ == "__main__":
    targets: dict[str, Callable[[Namespace], Target[Any]]] = {
        "lines": lambda _options: Lines(),
        "undelivered": lambda options: UndeliveredMessages(options.folder),
        "configurations": lambda options: Configurations(options.folder),
    }
    sys.exit(main("producer", targets))
