"""A pattern means the same for the client, which uses POSIX regular expressions, and for the tools."""

import re
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.model.topic_names import NAME, PATTERN, check_pattern, exactly, matches

NAMES = ["a", "b", "ab", "aab", "a.b", "a-b", "a_b", "a1", "b.a", "data-topic", "data-topic.dlq", "dataXtopic", "a,b"]
atoms = st.sampled_from(["a", "b", "-", "_", "1", ",", ".", r"\.", "[ab]", "[^a]", "[a-z]", "[.-]", "(a|b)", "$"])
quantifiers = st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,}", "{1,2}"])
parts = st.tuples(atoms, quantifiers).map("".join) | st.just("|")
patterns = st.lists(parts, max_size=5).map(lambda parts: "^" + "".join(parts))


@pytest.mark.skipif(shutil.which("grep") is None, reason="grep is not installed")
@settings(max_examples=300, deadline=None)
@given(patterns)
def test_a_pattern_that_is_accepted_matches_what_it_matches_in_posix(pattern: str) -> None:
    assert re.match(PATTERN, pattern)
    try:
        check_pattern(pattern)
    except ValueError:
        return

    found = subprocess.run(["grep", "-E", "--", pattern], input="\n".join(NAMES), text=True, capture_output=True)

    if found.returncode < 2:  # otherwise the client rejects it too
        assert [name for name in NAMES if matches(pattern, name)] == found.stdout.splitlines()


@given(st.from_regex(NAME, fullmatch=True), st.from_regex(NAME, fullmatch=True))
def test_exactly_one_topic_matches_its_own_pattern(topic: str, other: str) -> None:
    assert matches(exactly(topic), topic)
    assert matches(exactly(topic), other) is (topic == other)
