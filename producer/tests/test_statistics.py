"""What the client's statistics and complaints say of the cluster, put together."""

import json

from src.kafka.statistics import ClusterStatistics


def statistics(**states: str) -> str:
    """As librdkafka gives them; `bootstrap` is the address that it was told, the others are the cluster's own."""
    brokers = {name: {"state": state, "nodeid": -1 if name == "bootstrap" else 1} for name, state in states.items()}
    return json.dumps({"brokers": brokers})


def test_at_first_nothing_is_known_and_the_first_statistics_with_a_broker_end_that() -> None:
    view = ClusterStatistics("a:1")
    at_first = view.trouble
    view.update(statistics(bootstrap="UP"))
    only_an_address = view.trouble

    view.update(statistics(bootstrap="UP", one="INIT"))

    assert at_first == only_an_address == "broker a:1: not connected yet"
    assert view.trouble is None


def test_one_broker_that_is_away_is_no_trouble_while_another_is_there() -> None:
    view = ClusterStatistics("a:1")
    view.update(statistics(one="UP", two="UP"))

    view.complain("one: disconnected")
    at_once = view.trouble
    view.update(statistics(one="DOWN", two="UP"))

    assert at_once is view.trouble is None


def test_the_last_broker_that_goes_away_is_trouble_with_the_statistics_that_show_it() -> None:
    view = ClusterStatistics("a:1")
    view.update(statistics(one="UP"))

    view.complain("one: refused")
    view.update(statistics(one="DOWN"))
    away = view.trouble
    view.update(statistics(one="UP"))

    assert (away, view.trouble) == ("broker a:1: one: refused", None)


def test_where_the_client_says_that_all_are_away_no_statistics_are_waited_for() -> None:
    view = ClusterStatistics("a:1")
    view.update(statistics(one="UP"))
    view.complain("one: refused")

    view.all_are_away()

    assert view.trouble == "broker a:1: one: refused"
