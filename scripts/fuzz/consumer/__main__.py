"""`python -m fuzz.consumer`: feeds one target of the consumer."""

import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from fuzz.consumer.configurations import Configurations
from fuzz.consumer.messages import Messages
from fuzz.target import Target
from fuzz.worker import main

if __name__ == "__main__":
    targets: dict[str, Callable[[Namespace], Target[Any]]] = {
        "messages": lambda options: Messages(options.folder, options.mongodb),
        "configurations": lambda options: Configurations(options.folder),
    }
    sys.exit(main("consumer", targets))
