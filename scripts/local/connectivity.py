"""Whether a server accepts connections: known at once, where a client library would keep retrying."""

import socket
from collections.abc import Sequence

from local.errors import CannotRun

Address = tuple[str, int]

CONNECT_TIMEOUT = 5.0  # seconds


def require_kafka_reachable(servers: str) -> None:
    """Raises CannotRun if none of the brokers accepts a connection."""
    _require_one("Kafka", kafka_addresses(servers))


def require_mongodb_reachable(uri: str) -> None:
    """Raises CannotRun if none of the servers accepts a connection."""
    _require_one("MongoDB", mongodb_addresses(uri))


def _require_one(server: str, addresses: Sequence[Address]) -> None:
    errors = [connection_error(address) for address in addresses]
    if errors and all(errors):
        shown = ",".join(map(host_port, addresses))
        raise CannotRun(f"cannot connect to {server} at {shown} ({errors[0]}): check that it runs and listens there")


def connection_error(address: Address) -> str | None:
    """Why a connection fails; None if it succeeds."""
    host, port = address
    try:
        socket.create_connection((host.strip("[]"), port), timeout=CONNECT_TIMEOUT).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def kafka_addresses(servers: str) -> list[Address]:
    """The addresses in HOST:PORT,HOST:PORT."""
    return [(host, int(port)) for host, _, port in (server.rpartition(":") for server in servers.split(","))]


def mongodb_addresses(uri: str) -> list[Address]:
    """The addresses in a mongodb:// URI; none for mongodb+srv://, whose hosts are in DNS."""
    scheme, _, rest = uri.partition("://")
    if scheme != "mongodb":
        return []
    hosts = rest.partition("/")[0].partition("?")[0].rpartition("@")[2].split(",")
    return [_with_port(host) for host in hosts]


def host_port(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


def _with_port(host: str) -> Address:
    name, _, port = host.rpartition(":")
    return (name, int(port)) if name and port.isdigit() else (host, 27017)
