"""Whether anybody listens at an address: found out at once, where a client would try for a while."""

import socket
from collections.abc import Sequence

from local.errors import CannotRun

WITHIN = 5.0  # seconds


def reach_one_of(what: str, shown: str, addresses: Sequence[tuple[str, int]]) -> None:
    """Raises CannotRun, about what is `shown`, where none of the addresses answers."""
    reasons = [unreachable(host, port) for host, port in addresses]
    if reasons and all(reasons):
        raise CannotRun(f"cannot reach {what} at {shown} ({reasons[0]}): is it running, and is that its address?")


def unreachable(host: str, port: int) -> str | None:
    """Why nobody answers there; None where somebody does."""
    try:
        socket.create_connection((host.strip("[]"), port), timeout=WITHIN).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def in_kafka(servers: str) -> list[tuple[str, int]]:
    """The addresses in HOST:PORT,HOST:PORT."""
    return [(host, int(port)) for host, _, port in (server.rpartition(":") for server in servers.split(","))]


def in_mongodb(uri: str) -> list[tuple[str, int]]:
    """The addresses in a mongodb:// URI; none in a mongodb+srv:// one, which names them elsewhere."""
    scheme, _, rest = uri.partition("://")
    if scheme != "mongodb":
        return []
    hosts = rest.partition("/")[0].partition("?")[0].rpartition("@")[2].split(",")
    return [_with_port(host) for host in hosts]


def _with_port(host: str) -> tuple[str, int]:
    name, _, port = host.rpartition(":")
    return (name, int(port)) if name and port.isdigit() else (host, 27017)
