"""The status of a running service: its responses to /live, /ready and /metrics.

A health check starts this program every few seconds, so it imports little; and it connects without a proxy.
"""

import argparse
import json
import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from src.utils import command_line
from src.utils.config import ConfigurationError
from src.utils.text import printable

READY, NOT_READY, NOT_REACHED = 0, 1, 2  # exit codes
TIMEOUT = 3.0  # seconds for all requests together

_WILDCARDS = ("", "0.0.0.0", "::")  # noqa: S104 - nothing is bound here
_SAMPLE = re.compile(r"^(?P<metric>\w+)(\{(?P<labels>.*)\})? (?P<value>\S+)$", re.MULTILINE)


class NotReached(Exception):
    """There is no response, or not one of a health server."""


class Address(NamedTuple):
    """Where a health server listens that is bound to this host and port."""

    host: str
    port: int

    @property
    def connectable(self) -> tuple[str, int]:
        return ("127.0.0.1" if self.host in _WILDCARDS else self.host), self.port

    def __str__(self) -> str:
        host, port = self.connectable
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Figure(NamedTuple):
    """A number for the report: the sum of the metric's samples that have this label."""

    name: str
    description: str
    metric: str
    label: str = ""


class Health(NamedTuple):
    ok: bool
    reasons: Sequence[str]


class Status(NamedTuple):
    """`figures` is None if the service does not serve metrics; a figure without samples is None."""

    live: Health
    ready: Health | None = None
    figures: Mapping[str, int | None] | None = None

    @property
    def ok(self) -> bool:
        return self.live.ok if self.ready is None else self.ready.ok


def main(
    service: str,
    figures: Sequence[Figure],
    address: Callable[[Path], Address],
    default_file: Path,
    version: str,
    arguments: Sequence[str] | None = None,
) -> int:
    """The program; `address` reads the address from a settings file and the environment."""

    def body() -> int:
        options = _parser(service, default_file, version).parse_args(arguments)
        where = address(options.config)
        status = read_live(where) if options.live else read_status(where, figures)
        print(as_json(status) if options.json else as_text(service, where, status, figures))
        return READY if status.ok else NOT_READY

    failures = {ConfigurationError: NOT_REACHED, NotReached: NOT_REACHED}
    return command_line.run("status", body, failures, error_code=NOT_REACHED)


def read_live(address: Address, timeout: float = TIMEOUT) -> Status:
    """Raises NotReached."""
    return Status(_health(address, "/live", time.monotonic() + timeout))


def read_status(address: Address, figures: Sequence[Figure], timeout: float = TIMEOUT) -> Status:
    """Raises NotReached."""
    deadline = time.monotonic() + timeout
    live, ready = (_health(address, path, deadline) for path in ("/live", "/ready"))
    code, metrics = _get(address, "/metrics", deadline)
    return Status(live, ready, _figures(metrics, figures) if code == 200 else None)


def as_json(status: Status) -> str:
    return json.dumps(
        {
            "live": status.live._asdict(),
            **({} if status.ready is None else {"ready": status.ready._asdict(), "metrics": status.figures}),
        }
    )


def as_text(service: str, address: Address, status: Status, figures: Sequence[Figure]) -> str:
    lines = [f"{service} at {address}", *_health_lines("live", status.live)]
    if status.ready is not None:
        lines += [*_health_lines("ready", status.ready), *_figure_lines(status.figures, figures)]
    return "\n".join(lines)


def _health_lines(name: str, health: Health) -> list[str]:
    return [f"  {name if health.ok else f'not {name}'}", *(f"    {printable(reason)}" for reason in health.reasons)]


def _figure_lines(values: Mapping[str, int | None] | None, figures: Sequence[Figure]) -> list[str]:
    if values is None:
        return ["  no metrics: metrics.enabled is false"]
    known = [(values[figure.name], figure.description) for figure in figures]
    return [f"  {value:>15,}  {description}" for value, description in known if value is not None]


def _figures(metrics: str, figures: Sequence[Figure]) -> dict[str, int | None]:
    samples = list(_SAMPLE.finditer(metrics))
    return {figure.name: _sum(figure, samples) for figure in figures}


def _sum(figure: Figure, samples: Iterable[re.Match[str]]) -> int | None:
    values = [
        float(sample["value"])
        for sample in samples
        if sample["metric"] == figure.metric and figure.label in (sample["labels"] or "")
    ]
    return round(sum(values)) if values else None


def _health(address: Address, path: str, deadline: float) -> Health:
    _, body = _get(address, path, deadline)
    try:
        response: Any = json.loads(body)
        return Health(bool(response["ok"]), [str(reason) for reason in response["reasons"]])
    except (ValueError, LookupError, TypeError):
        raise NotReached(f"{address} responds, but not as a health server does") from None


def _get(address: Address, path: str, deadline: float) -> tuple[int, str]:
    """Status code and body. Importing `http.client` would take as long as the rest of the program."""
    if not address.port:
        raise NotReached("metrics.port is 0, any free port; set METRICS_PORT to the port that the service has logged")
    try:
        response = _exchange(address, f"GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n".encode(), deadline)
    except OSError as error:
        raise NotReached(f"{address} is not reached: {error.strerror or error}") from None
    head, _, body = response.decode(errors="replace").partition("\r\n\r\n")
    match = re.match(r"HTTP/\d\.\d (\d{3}) ", head)
    if match is None:
        raise NotReached(f"{address} responds, but not as a health server does")
    return int(match[1]), body


def _exchange(address: Address, request: bytes, deadline: float) -> bytes:
    response = bytearray()
    with socket.create_connection(address.connectable, _remaining(deadline)) as connection:
        connection.sendall(request)
        connection.settimeout(_remaining(deadline))
        while part := connection.recv(65536):
            response += part
            connection.settimeout(_remaining(deadline))
    return bytes(response)


def _remaining(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("timed out")
    return seconds


def _parser(service: str, default_file: Path, version: str) -> argparse.ArgumentParser:
    parser = command_line.parser(
        "status",
        version,
        f"Show whether the running {service} is live and ready, why not, and its most important metrics."
        " The address is that of the settings: metrics.host and metrics.port.",
        examples=["", "--json"],
        exit_codes="0 ready, or live with --live; 1 not; 2 not reached, or wrong configuration or arguments",
    )
    command_line.add_config(parser, default_file)
    parser.add_argument("--live", action="store_true", help="liveness only: exit with 0 if it is live, 1 if not")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser
