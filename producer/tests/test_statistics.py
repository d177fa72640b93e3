"""Availability as derived from statistics and error events."""

import json

from src.kafka.statistics import ClusterStatistics


def statistics(**states: str) -> str:
    """As librdkafka reports them; `bootstrap` is the configured address, the others are advertised."""
    brokers = {name: {"state": state, "nodeid": -1 if name == "bootstrap" else 1} for name, state in states.items()}
    return json.dumps({"brokers": brokers})


def test_kafka_is_unavailable_until_the_first_statistics_with_a_broker() -> None:
    cluster = ClusterStatistics("a:1", "t")
    initially = cluster.unavailable_reason
    cluster.update(statistics(bootstrap="UP"))
    only_an_address = cluster.unavailable_reason

    cluster.update(statistics(bootstrap="UP", one="INIT"))

    assert initially == only_an_address == "broker a:1: not connected yet"
    assert cluster.unavailable_reason is None


def test_one_unreachable_broker_does_not_matter_while_another_is_up() -> None:
    cluster = ClusterStatistics("a:1", "t")
    cluster.update(statistics(one="UP", two="UP"))

    cluster.record_error("one: disconnected")
    batch_size = cluster.unavailable_reason
    cluster.update(statistics(one="DOWN", two="UP"))

    assert batch_size is cluster.unavailable_reason is None


def test_kafka_is_unavailable_once_the_statistics_show_no_broker_up() -> None:
    cluster = ClusterStatistics("a:1", "t")
    cluster.update(statistics(one="UP"))

    cluster.record_error("one: refused")
    cluster.update(statistics(one="DOWN"))
    down = cluster.unavailable_reason
    cluster.update(statistics(one="UP"))

    assert (down, cluster.unavailable_reason) == ("broker a:1: one: refused", None)


def test_all_brokers_down_takes_effect_before_the_next_statistics() -> None:
    cluster = ClusterStatistics("a:1", "t")
    cluster.update(statistics(one="UP"))
    cluster.record_error("one: refused")

    cluster.record_all_brokers_down()

    assert cluster.unavailable_reason == "broker a:1: one: refused"


def with_topic(*partitions: str) -> str:
    """`-1` holds the messages whose partition is not known yet."""
    topics = {"t": {"partitions": dict.fromkeys(partitions, "details")}}
    return json.dumps({"brokers": {"one": {"state": "UP", "nodeid": 1}}, "topics": topics})


def test_a_topic_with_messages_is_missing_until_it_has_partitions() -> None:
    cluster = ClusterStatistics("a:1", "t")
    cluster.update(statistics(one="UP"))
    without_messages = cluster.topic_failure
    cluster.update(with_topic("-1"))
    missing = cluster.topic_failure

    cluster.update(with_topic("-1", "0"))

    assert (without_messages, missing, cluster.topic_failure) == (None, "topic t: not found yet", None)


def test_a_topic_that_was_found_once_is_not_missing_any_more() -> None:
    delivered, found = ClusterStatistics("a:1", "t"), ClusterStatistics("a:1", "t")
    delivered.record_delivery()
    found.update(with_topic("0", "-1"))

    for cluster in (delivered, found):
        cluster.update(with_topic("-1"))

    assert (delivered.topic_failure, found.topic_failure) == (None, None)


def test_a_broker_that_librdkafka_lists_twice_is_up_if_one_of_the_two_is() -> None:
    for states in (("UP", "INIT"), ("INIT", "UP")):
        cluster = ClusterStatistics("a:1", "t")
        listed = ", ".join(f'"a:1/1": {{"state": "{state}", "nodeid": 1}}' for state in states)
        cluster.record_error("one: refused")

        cluster.update(f'{{"brokers": {{{listed}}}}}')

        assert cluster.unavailable_reason is None
