"""Faults that heal with the end of their `with` block, whatever happens in it."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from chaos.proxy import Proxy
from chaos.servers import Server
from local.children import Child


@contextmanager
def killed(server: Server) -> Iterator[None]:
    try:
        server.kill()
        yield
    finally:
        server.start()


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    try:
        server.stop()
        yield
    finally:
        server.start()


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    try:
        server.pause()
        yield
    finally:
        server.resume()


@contextmanager
def asleep(child: Child) -> Iterator[None]:
    """A process that does not run, and does not know it."""
    child.send(signal.SIGSTOP)
    try:
        yield
    finally:
        child.send(signal.SIGCONT)


@contextmanager
def cut(proxy: Proxy) -> Iterator[None]:
    """Connections end, and none can be made."""
    proxy.cut()
    try:
        yield
    finally:
        proxy.mend()


@contextmanager
def silent(proxy: Proxy) -> Iterator[None]:
    """Connections stay, and nothing arrives."""
    proxy.freeze()
    try:
        yield
    finally:
        proxy.mend()


@contextmanager
def slow(proxy: Proxy, seconds: float) -> Iterator[None]:
    proxy.slow(seconds)
    try:
        yield
    finally:
        proxy.mend()


def kill(child: Child) -> None:
    child.send(signal.SIGKILL)
    child.wait()


def set_clock_back(child: Child) -> None:
    """Of one that was started with `--clock-back`."""
    child.send(signal.SIGUSR1)


@contextmanager
def full_disk(child: Child, room: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)  # ours, which it has from us
    _limit(child, (room, before[1]))
    try:
        yield
    finally:
        _limit(child, before)


def _limit(child: Child, size: tuple[int, int]) -> None:
    if child.exit_code is None:
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, size)
