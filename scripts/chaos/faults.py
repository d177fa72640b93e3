"""Faults that end with their `with` block, even if an exception leaves it."""

import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial

from chaos.proxy import Proxy
from chaos.servers import Server
from local.children import Child
from local.errors import CannotRun

Fault = AbstractContextManager[None]


@contextmanager
def _between(begin: Callable[[], object], end: Callable[[], object]) -> Iterator[None]:
    """Ended too if `begin` fails halfway. An error of the end does not hide the one before it."""
    try:
        begin()
        yield
    except BaseException:
        with suppress(CannotRun):
            end()
        raise
    end()


def killed(server: Server) -> Fault:
    return _between(server.kill, server.start)


def stopped(server: Server) -> Fault:
    return _between(server.stop, server.start)


def frozen(server: Server) -> Fault:
    return _between(server.pause, server.resume)


def frozen_process(child: Child) -> Fault:
    """The process does not run, and does not notice."""
    return _between(partial(child.send_signal, signal.SIGSTOP), partial(child.send_signal, signal.SIGCONT))


def network_cut(proxy: Proxy) -> Fault:
    """Connections are closed and refused."""
    return _between(proxy.cut, proxy.heal)


def network_frozen(proxy: Proxy) -> Fault:
    """Connections stay open, and no data arrives."""
    return _between(proxy.freeze, proxy.heal)


def network_slow(proxy: Proxy, seconds: float) -> Fault:
    return _between(partial(proxy.slow, seconds), proxy.heal)


def disk_full(child: Child, limit: int) -> Fault:
    """No file of this process can grow beyond this many bytes."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)  # a child inherits it
    return _between(partial(_limit_files, child, (limit, usual[1])), partial(_limit_files, child, usual))


def _limit_files(child: Child, size: tuple[int, int]) -> None:
    if child.exit_code is None:
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, size)
