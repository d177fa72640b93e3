"""The producer's settings."""

from pathlib import Path

from msgspec.structs import replace

from fuzz.settings_check import Service, ServiceSettings, read
from src.producer import DataProducer, main
from src.settings import DEFAULT_FILE, VARIABLES, Settings, load_settings
from src.utils.config import ConfigurationError

NOWHERE = "127.0.0.1:1"


class Configurations(ServiceSettings):
    def __init__(self, folder: Path) -> None:
        service = Service(
            "producer", read(DEFAULT_FILE), VARIABLES, ConfigurationError, load_settings, main, self._build
        )
        super().__init__(service, folder)

    def _build(self, settings: Settings) -> None:
        """It knocks on no door but this machine's own, and writes into no folder but ours."""
        kafka = replace(settings.kafka, bootstrap_servers=NOWHERE)
        producer = replace(settings.producer, undelivered_dir=str(self._folder / "undelivered"))
        DataProducer(settings=replace(settings, kafka=kafka, producer=producer)).close()
