"""The producer's configuration."""

from pathlib import Path

from hypothesis import given, settings
from msgspec.structs import replace

from fuzz.configuration import UNREACHABLE, Configuration, Service, check, check_process, configurations
from src.producer import DataProducer, main
from src.settings import DEFAULT_FILE, VARIABLES, Settings, load_settings
from src.utils.config import ConfigurationError


def _build(settings: Settings, folder: Path) -> None:
    kafka = replace(settings.kafka, bootstrap_servers=UNREACHABLE)
    producer = replace(settings.producer, undelivered_dir=str(folder / "undelivered"))
    DataProducer(settings=replace(settings, kafka=kafka, producer=producer)).close()


SERVICE = Service("producer", DEFAULT_FILE, VARIABLES, ConfigurationError, load_settings, main, _build)


@given(configurations(SERVICE))
def test_a_configuration_is_accepted_or_rejected_in_one_line_without_secrets(configuration: Configuration) -> None:
    check(SERVICE, configuration)


@settings(max_examples=10)
@given(configurations(SERVICE))
def test_a_process_with_a_rejected_configuration_exits_with_2(configuration: Configuration) -> None:
    check_process(SERVICE, configuration)
