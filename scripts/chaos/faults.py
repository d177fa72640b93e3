"""Faults that heal with the end of their `with` block, whatever happens in it."""

import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from chaos.proxy import Proxy
from chaos.servers import Server
from local.children import Child

Fault = AbstractContextManager[None]


@contextmanager
def _between(begin: Callable[[], object], heal: Callable[[], object]) -> Iterator[None]:
    """Healed too where it began by halves."""
    try:
        begin()
        yield
    finally:
        heal()


def killed(server: Server) -> Fault:
    return _between(server.kill, server.start)


def stopped(server: Server) -> Fault:
    return _between(server.stop, server.start)


def frozen(server: Server) -> Fault:
    return _between(server.pause, server.resume)


def asleep(child: Child) -> Fault:
    """A process that does not run, and does not know it."""
    return _between(partial(child.send, signal.SIGSTOP), partial(child.send, signal.SIGCONT))


def cut(proxy: Proxy) -> Fault:
    """Connections end, and none can be made."""
    return _between(proxy.cut, proxy.mend)


def silent(proxy: Proxy) -> Fault:
    """Connections stay, and nothing arrives."""
    return _between(proxy.freeze, proxy.mend)


def slow(proxy: Proxy, seconds: float) -> Fault:
    return _between(partial(proxy.slow, seconds), proxy.mend)


def kill(child: Child) -> None:
    child.send(signal.SIGKILL)
    child.wait()


def set_clock_back(child: Child) -> None:
    """Of one that was started with `--clock-back`."""
    child.send(signal.SIGUSR1)


def full_disk(child: Child, room: int) -> Fault:
    """No file of this process grows beyond so many bytes."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)  # ours, which it has from us
    return _between(partial(_limit, child, (room, usual[1])), partial(_limit, child, usual))


def _limit(child: Child, size: tuple[int, int]) -> None:
    if child.exit_code is None:
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, size)
