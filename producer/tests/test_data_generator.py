"""Generated messages have the documented format."""

import re
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from src.data_generator import DataGenerator, random_ids, random_numbers
from src.model.message import Message, encode

NOON = 1_689_424_496.789  # 2023-07-15T12:34:56.789Z


def test_a_message_has_the_documented_format() -> None:
    generator = DataGenerator(clock=lambda: NOON, ids=lambda _: ["an-id"], numbers=lambda _: ["12345678"])

    messages = generator.generate_batch(1)

    assert messages == [
        Message(
            key="an-id",
            value={
                "id": "an-id",
                "name": "item_12345678",
                "created_at": "2023-07-15T12:34:56.789Z",
                "metadata": {"source": "system-a", "version": "1.0.0"},
            },
            headers={"content-type": "application/json", "created_at": "2023-07-15T12:34:56.789Z"},
        )
    ]


def test_the_key_is_the_id_which_is_unique() -> None:
    messages = DataGenerator().generate_batch(1000)

    assert all(message.key == message.value["id"] for message in messages)
    assert len({message.key for message in messages}) == 1000


def test_ids_are_version_4_uuids_in_lower_case() -> None:
    ids = random_ids(1000)

    assert all(str(UUID(identifier)) == identifier for identifier in ids)
    assert all(UUID(identifier).version == 4 for identifier in ids)
    assert {identifier[19] for identifier in ids} == set("89ab")


def test_numbers_have_eight_digits_and_all_digits_occur() -> None:
    numbers = random_numbers(1000)

    assert all(re.fullmatch(r"[0-9]{8}", number) for number in numbers)
    assert set("".join(numbers)) == set("0123456789")


@given(st.dictionaries(st.text(), st.text()))
def test_records_are_the_serialized_messages(numbers: dict[str, str]) -> None:
    generator = DataGenerator(clock=lambda: NOON, ids=lambda _: [*numbers], numbers=lambda _: [*numbers.values()])

    records = generator.generate_records(len(numbers))

    assert records == [encode(message) for message in generator.generate_batch(len(numbers))]


def test_messages_of_a_batch_share_no_mutable_objects() -> None:
    first, second = DataGenerator().generate_batch(2)

    assert first.value["metadata"] is not second.value["metadata"]
    assert first.headers is not second.headers


def test_a_batch_of_size_0_is_empty() -> None:
    assert DataGenerator().generate_batch(0) == []
