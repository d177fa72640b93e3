"""Settings come from a file and the environment, and are validated once."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta, Struct, field

from src.utils.config import ConfigurationError, Variable, load, parse
from src.utils.secret import ClientSettings, Secret


class ShortSecret(Secret):
    __slots__ = ()

    def __init__(self, value: str) -> None:
        if len(value) > 99:
            raise ValueError("Expected `str` of length <= 99")
        super().__init__(value)


Name = Annotated[str, Meta(pattern="^[a-z]+$", description="a name in lower case")]


class Client(Struct, frozen=True, forbid_unknown_fields=True):
    size: Annotated[int, Meta(ge=1)] = 1
    rate: float = 1.0
    enabled: bool = True
    password: ShortSecret = ShortSecret("")
    extra: ClientSettings = ClientSettings()
    names: tuple[Name, ...] = ()
    types: dict[Name, Literal["text", "number"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.names and self.types:
            raise ValueError("names and types are both set; empty one of them")


class Tree(Struct, frozen=True, forbid_unknown_fields=True):
    client: Client = Client()
    days: int | None = None


VARIABLES = (
    Variable("CLIENT_SIZE", ("client", "size")),
    Variable("CLIENT_RATE", ("client", "rate")),
    Variable("CLIENT_ENABLED", ("client", "enabled")),
    Variable("CLIENT_PASSWORD", ("client", "password"), secret=True),
    Variable("CLIENT_EXTRA", ("client", "extra", "some.key")),
    Variable("CLIENT_NAMES", ("client", "names")),
    Variable("CLIENT_TYPES", ("client", "types")),
    Variable("DAYS", ("days",)),
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text("{}")
    return path


def loaded(path: Path, **environ: str) -> Tree:
    return load(Tree, path, VARIABLES, environ)


def problem(path: Path, **environ: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        loaded(path, **environ)
    return str(caught.value)


def test_an_empty_object_is_all_defaults(file: Path) -> None:
    assert loaded(file) == Tree()


def test_the_environment_overrides_the_file(file: Path) -> None:
    file.write_text('{"client": {"size": 2, "rate": 2}}')

    settings = loaded(file, CLIENT_SIZE=" 3 ", CLIENT_ENABLED="false", DAYS="7")

    assert settings == Tree(client=Client(size=3, rate=2.0, enabled=False), days=7)


def test_a_variable_in_a_free_form_section_is_text(file: Path) -> None:
    assert loaded(file, CLIENT_EXTRA="1").client.extra == {"some.key": "1"}


@pytest.mark.parametrize("text", ["a,b", " a , b,", '["a", "b"]'])
def test_a_list_is_separated_by_commas_or_json(file: Path, text: str) -> None:
    assert loaded(file, CLIENT_NAMES=text).client.names == ("a", "b")


@pytest.mark.parametrize("text", ["a=text,b=number", "a = text , b=number,", '{"a": "text", "b": "number"}'])
def test_a_mapping_has_equals_signs_or_is_json(file: Path, text: str) -> None:
    assert loaded(file, CLIENT_TYPES=text).client.types == {"a": "text", "b": "number"}


@pytest.mark.parametrize("text", ["{}", ","])
def test_a_mapping_or_list_of_the_file_can_be_emptied(file: Path, text: str) -> None:
    file.write_text('{"client": {"types": {"a": "text"}}}')

    assert loaded(file, CLIENT_TYPES=text).client.types == {}


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("CLIENT_NAMES", "a,B", "Expected a name in lower case"),
        ("CLIENT_NAMES", '["a"', "Expected JSON after `[`"),
        ("CLIENT_NAMES", "[" * 100_000, "nested too deeply"),
        ("CLIENT_TYPES", "a", "Expected name=value"),
        ("CLIENT_TYPES", "A=text", "Expected a name in lower case"),
        ("CLIENT_TYPES", "a=text,a=number", "duplicate key 'a'"),
        ("CLIENT_TYPES", "a=date", "Invalid enum value 'date'; use one of text, number"),
    ],
)
def test_an_error_names_what_is_wrong_in_a_list_or_mapping(file: Path, variable: str, text: str, expected: str) -> None:
    shown = problem(file, **{variable: text})

    assert f"{variable}: " in shown
    assert expected in shown
    assert "matching regex" not in shown


def test_an_error_in_a_mapping_of_the_file_names_the_setting(file: Path) -> None:
    file.write_text('{"client": {"types": {"A": "text"}}}')
    assert "client.types: Expected a name in lower case, found {'A': 'text'}" in problem(file)

    file.write_text('{"client": {"types": {"a": "date"}}}')
    assert f"{file}: client.types: Invalid enum value 'date'; use one of text, number, found {{'a': 'date'}}" == (
        problem(file)
    )


def test_an_error_in_a_combination_names_the_file_and_the_variables_that_are_part_of_it(file: Path) -> None:
    file.write_text('{"client": {"names": ["a"]}}')
    text = "client: names and types are both set; empty one of them"

    assert problem(file, CLIENT_TYPES="a=text", CLIENT_SIZE="3") == f"{file} and CLIENT_TYPES: {text}"
    assert problem(file, CLIENT_TYPES="a=text", CLIENT_NAMES="b") == f"{file} and CLIENT_NAMES, CLIENT_TYPES: {text}"


def test_a_free_form_section_takes_plain_values_only(file: Path) -> None:
    file.write_text('{"client": {"extra": {"some.key": ["hunter2"]}}}')

    text = problem(file)

    assert text == f"{file}: client.extra: Expected `str`, `int`, `float` or `bool` for `some.key`, got `list`"


@pytest.mark.parametrize("text", ["", "  ", "\r\n"])
def test_a_blank_variable_is_not_set(file: Path, text: str) -> None:
    assert loaded(file, CLIENT_SIZE=text, CLIENT_PASSWORD_FILE=text) == Tree()


def test_a_bom_and_windows_line_ends_are_ignored(file: Path) -> None:
    file.write_bytes(b'\xef\xbb\xbf{\r\n "days": 1\r\n}\r\n')

    assert loaded(file).days == 1


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "not a JSON object"),
        (b"{", "not a JSON object"),
        (b"[]", "list"),
        (b"\xff", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"days": 1, "days": 2}', "duplicate key 'days'"),
        (b'{"day": 1}', "day"),
        (b'{"a\\u001b\\n": 1}', r"a\x1b\n"),
        (b'{"client": 1}', "client"),
        (b'{"client": {"size": 0}}', "client.size"),
        (b'{"client": {"size": "a\\u001b"}}', "client.size"),
    ],
)
def test_an_error_names_an_invalid_file_and_the_setting(file: Path, content: bytes, named: str) -> None:
    file.write_bytes(content)

    text = problem(file)

    assert str(file) in text
    assert named in text
    assert text.isprintable()


def test_an_error_names_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in problem(tmp_path / "none.json")
    assert "Is a directory" in problem(tmp_path)


def test_an_error_names_an_invalid_section_that_a_variable_is_in(file: Path) -> None:
    file.write_text('{"client": []}')

    assert "client" in problem(file, CLIENT_SIZE="3")


def test_an_error_names_an_invalid_variable_and_shows_its_value_escaped(file: Path) -> None:
    text = problem(file, CLIENT_SIZE="a\x1bb")

    assert "CLIENT_SIZE" in text
    assert r"'a\x1bb'" in text


def test_an_error_about_an_injected_variable_suggests_the_cause(file: Path) -> None:
    assert "Kubernetes" in problem(file, CLIENT_SIZE="tcp://10.0.0.1:8000")


@pytest.mark.parametrize(("content", "secret"), [(b"a b ", "a b "), (b"s\n", "s"), (b"s\r\n", "s"), (b"s\n\n", "s\n")])
def test_a_secret_is_read_from_a_file_without_the_final_line_end(
    file: Path, tmp_path: Path, content: bytes, secret: str
) -> None:
    (tmp_path / "secret").write_bytes(content)

    assert loaded(file, CLIENT_PASSWORD_FILE=str(tmp_path / "secret")).client.password.reveal() == secret


@pytest.mark.parametrize(("content", "named"), [(b"", "empty"), (b"\r\n", "empty"), (b"\xff\xfe", "not UTF-8")])
def test_an_error_names_an_invalid_secret_file(file: Path, tmp_path: Path, content: bytes, named: str) -> None:
    (tmp_path / "secret").write_bytes(content)

    text = problem(file, CLIENT_PASSWORD_FILE=str(tmp_path / "secret"))

    assert "CLIENT_PASSWORD_FILE" in text
    assert named in text


def test_an_error_names_a_secret_file_that_cannot_be_read(file: Path, tmp_path: Path) -> None:
    assert "No such file" in problem(file, CLIENT_PASSWORD_FILE=str(tmp_path / "none"))
    assert "Is a directory" in problem(file, CLIENT_PASSWORD_FILE=str(tmp_path))
    assert "CLIENT_PASSWORD_FILE" in problem(file, CLIENT_PASSWORD_FILE="nul\0name")


def test_an_error_names_the_file_of_an_invalid_secret_and_does_not_show_it(file: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2" * 100)

    text = problem(file, CLIENT_PASSWORD_FILE=str(tmp_path / "secret"))

    assert f"CLIENT_PASSWORD_FILE={tmp_path / 'secret'}: Expected `str`" in text
    assert "hunter2" not in text


def test_an_error_names_a_secret_that_is_set_twice_and_does_not_show_it(file: Path) -> None:
    text = problem(file, CLIENT_PASSWORD="hunter2", CLIENT_PASSWORD_FILE="/run/secret")

    assert "CLIENT_PASSWORD_FILE" in text
    assert "hunter2" not in text


@pytest.mark.parametrize("password", [7, ["hunter2"], {"hunter2": 1}])
def test_an_error_names_an_invalid_secret_in_the_file_and_does_not_show_it(password: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(Tree, {"client": {"password": password}})

    assert "client.password" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "7" not in str(caught.value)


@pytest.mark.parametrize("section", ["hunter2", ["hunter2"], 7])
def test_an_error_does_not_show_a_value_in_place_of_a_section_with_a_secret(section: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(Tree, {"client": section})

    assert str(caught.value).startswith("config: client: Expected `object`")
    assert "found" not in str(caught.value)


def test_an_error_shows_an_invalid_value_that_is_not_a_secret() -> None:
    with pytest.raises(ConfigurationError, match=r"client\.size: Expected `int` >= 1, found 0"):
        parse(Tree, {"client": {"size": 0}})


def test_an_error_does_not_reference_the_text_of_the_file(file: Path) -> None:
    file.write_text('{"client": {"password": "hunter2"')

    with pytest.raises(ConfigurationError) as caught:
        loaded(file)

    assert caught.value.__cause__ is None
