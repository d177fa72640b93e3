"""Fixtures that several test modules share."""

import signal

from hypothesis import HealthCheck, settings

from tests.stack import stack

__all__ = ["stack"]

settings.register_profile("dev", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), max_examples=100, derandomize=True)
settings.register_profile("thorough", settings.get_profile("dev"), max_examples=1000)
settings.load_profile("dev")

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `nohup` ignores it, also in the programs that a test starts
