"""The documents agree with the code, and their links resolve."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
CONFIGURATION = ROOT / "docs" / "configuration.md"
SERVICES = ("producer", "consumer")
SOURCES = [path for service in SERVICES for path in (ROOT / service / "src").rglob("*.py")]
MAX_LINE = 100
NO_DEFAULT = ("None", "", "ClientSettings({})")

# Prints the settings of the service in the current folder; the packages of both services are named src.
DESCRIBE_SETTINGS = """
import json
from msgspec import inspect
from src.settings import RESERVED, VARIABLES, Settings

def settings(struct, path=()):
    for field in struct.fields:
        here = (*path, field.name)
        if isinstance(field.type, inspect.StructType):
            yield from settings(field.type, here)
        else:
            yield here, field

def shown(value):  # as in an environment variable
    if isinstance(value, dict):
        value = [f"{name}={each}" for name, each in value.items()]
    return ",".join(value) if isinstance(value, list | tuple) else json.dumps(value, default=str).strip('"')

def described(path, field):
    default = field.default_factory() if field.default is inspect.NODEFAULT else field.default
    types = getattr(field.type, "types", [field.type])
    numbers = [kind for kind in types if isinstance(kind, inspect.IntType | inspect.FloatType)]
    return {
        "variables": [variable.name for variable in VARIABLES if variable.path == path],
        "default": shown(default) if default else "" if default in ((), {}) else str(default),
        "range": [numbers[0].ge, numbers[0].le] if numbers else None,
        "choices": [value for kind in types if isinstance(kind, inspect.LiteralType) for value in kind.values],
    }

print(json.dumps({
    "settings": {".".join(path): described(path, field) for path, field in settings(inspect.type_info(Settings))},
    "client": {variable.name: variable.path[2] for variable in VARIABLES if len(variable.path) == 3},
    "secrets": [variable.name for variable in VARIABLES if variable.secret],
    "reserved": list(RESERVED),
}))
"""


def settings_of(service: str) -> dict[str, Any]:
    command = [sys.executable, "-c", DESCRIBE_SETTINGS]
    output = subprocess.run(command, cwd=ROOT / service, check=True, text=True, capture_output=True).stdout
    return dict(json.loads(output))


def lines_outside_code(document: Path) -> Iterator[tuple[int, str]]:
    in_code = False
    for number, line in enumerate(document.read_text().splitlines(), 1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code:
            yield number, line


def rows(document: Path, section: str) -> list[list[str]]:
    """The cells of the first table in a section."""
    text = document.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    table = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in table[2:]]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub generates for the headings."""
    headings = [line.lstrip("# ") for _, line in lines_outside_code(document) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def table_of_settings(service: str) -> dict[str, list[str]]:
    sections = (
        "Both services",
        service.capitalize(),
        *(["Documents", "Schema registry"] if service == "consumer" else []),
    )
    return {quoted(row[0])[0]: row for section in sections for row in rows(CONFIGURATION, section)}


def log_messages() -> list[str]:
    """Every constant message of a logger call, as a pattern."""
    calls = (node for path in SOURCES for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    return [
        pattern_of(call.args[0])
        for call in calls
        if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "logger" and call.args
    ]


def pattern_of(message: ast.expr) -> str:
    if isinstance(message, ast.Constant):
        return re.escape(str(message.value))
    if isinstance(message, ast.JoinedStr):
        return "".join(pattern_of(part) if isinstance(part, ast.Constant) else r"\w+" for part in message.values)
    return "|".join(pattern_of(part) for part in ast.walk(message) if isinstance(part, ast.Constant))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_and_anchor_resolves(document: Path) -> None:
    text = "\n".join(line for _, line in lines_outside_code(document))
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"https?:|mailto:", target)]

    for target in targets:
        path, _, anchor = target.partition("#")
        linked = (document.parent / path).resolve() if path else document
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_line_of_prose_is_longer_than_100_columns(document: Path) -> None:
    prose = [(number, line) for number, line in lines_outside_code(document) if not line.startswith("|")]

    too_long = [number for number, line in prose if len(line) > MAX_LINE and not re.search(r"\]\(\S+\)\S*$", line)]

    assert too_long == []


@pytest.mark.parametrize("service", SERVICES)
def test_the_configuration_page_describes_every_setting_and_no_other(service: str) -> None:
    actual = settings_of(service)["settings"]
    documented = table_of_settings(service)

    assert documented.keys() == actual.keys()
    for name, setting in actual.items():
        _, variable, default, values, *_ = documented[name]
        assert quoted(variable) == setting["variables"], name
        assert default == ("–" if setting["default"] in NO_DEFAULT else f"`{setting['default']}`"), name
        if setting["choices"]:
            assert sorted(quoted(values)) == sorted(setting["choices"]), name
        if setting["range"]:
            low, high = setting["range"]
            assert values == (f"up to {high:,}" if low is None else f"{low:,} to {high:,}"), name


@pytest.mark.parametrize("service", SERVICES)
def test_the_configuration_page_lists_reserved_keys_and_the_variables_for_tls_and_sasl(service: str) -> None:
    actual = settings_of(service)
    reserved = [row for row in rows(CONFIGURATION, "librdkafka settings") if row[1] in ("both", service)]

    assert sorted(key for row in reserved for key in quoted(row[0])) == sorted(actual["reserved"])
    assert {quoted(name)[0]: quoted(key)[0] for name, key in rows(CONFIGURATION, "TLS and SASL")} == actual["client"]


def test_the_configuration_page_lists_every_secret_that_a_file_may_contain() -> None:
    listed = CONFIGURATION.read_text().partition("## Secrets\n")[2].partition(" can also be")[0]

    assert sorted(quoted(listed)) == sorted({name for service in SERVICES for name in settings_of(service)["secrets"]})


def test_every_log_message_in_the_table_of_faults_exists() -> None:
    patterns = log_messages()
    messages = [message for row in rows(ARCHITECTURE, "Faults") for message in quoted(row[1])]

    assert len(messages) > 15
    assert [message for message in messages if not any(re.fullmatch(each, message) for each in patterns)] == []


def test_every_metric_in_the_table_of_faults_exists() -> None:
    sources = "".join((ROOT / service / "src/utils/metrics.py").read_text() for service in SERVICES)
    metrics = set(re.findall(r"`((?:producer|consumer)_\w+)`", ARCHITECTURE.read_text()))

    assert metrics
    assert [name for name in sorted(metrics) if f'"{name.removesuffix("_total")}"' not in sources] == []


def test_every_module_class_and_function_that_the_architecture_names_exists() -> None:
    text = ARCHITECTURE.read_text()
    modules = set(re.findall(r"`([a-z_/]+\.py)`", text))
    names = {part for name in re.findall(r"`([A-Z]\w+(?:\.\w+)?)`", text) for part in name.split(".")}
    defined = re.findall(
        r"^ *(?:class|def) (\w+)|^    ([A-Z]+) = ", "\n".join(map(Path.read_text, SOURCES)), re.MULTILINE
    )

    assert modules
    assert [
        name for name in modules if not any((ROOT / service / "src" / name).is_file() for service in SERVICES)
    ] == []
    assert names
    assert names - {"True", "False"} - {name for pair in defined for name in pair} == set()


def test_every_script_and_program_that_a_document_names_exists() -> None:
    text = "\n".join(document.read_text() for document in DOCUMENTS)
    scripts = set(re.findall(r"scripts/\w+\.sh", text))
    programs = {name.replace(".", "/") for name in re.findall(r"python -m (src\.\w+)", text)}

    assert scripts
    assert [name for name in scripts if not (ROOT / name).is_file()] == []
    assert programs
    for name in programs:
        assert any(ROOT.glob(f"*er/{name}.py")) or any(ROOT.glob(f"*er/{name}/__main__.py")), name
