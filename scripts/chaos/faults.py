"""Faults that heal with the end of their `with` block, whatever happens in it."""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from chaos.proxy import Proxy
from chaos.servers import Server
from local.children import Child


@contextmanager
def killed(server: Server) -> Iterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start()


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


@contextmanager
def asleep(child: Child) -> Iterator[None]:
    """A process that does not run, and does not know it."""
    os.kill(child.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(child.pid, signal.SIGCONT)


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
    os.kill(child.pid, signal.SIGKILL)
    child.wait()


@contextmanager
def full_disk(child: Child, room: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes."""
    before = resource.prlimit(child.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        if child.exit_code is None:
            resource.prlimit(child.pid, resource.RLIMIT_FSIZE, before)
