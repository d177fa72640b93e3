"""Requests to the health server."""

from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from tests.fakes import DEADLINE


def get(url: str) -> tuple[int, str]:
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=DEADLINE) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()
