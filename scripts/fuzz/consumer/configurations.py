"""The consumer's settings."""

from pathlib import Path

from msgspec.structs import replace

from fuzz.settings_check import Service, ServiceSettings, read
from src.consumer import DataConsumer, main
from src.settings import DEFAULT_FILE, VARIABLES, Settings, StoreUri, load_settings
from src.utils.config import ConfigurationError

NOWHERE = "127.0.0.1:1"


class Configurations(ServiceSettings):
    def __init__(self, folder: Path) -> None:
        service = Service(
            "consumer", read(DEFAULT_FILE), VARIABLES, ConfigurationError, load_settings, main, self._build
        )
        super().__init__(service, folder)

    def _build(self, settings: Settings) -> None:
        """It knocks on no door but this machine's own."""
        mongodb = settings.mongodb
        if mongodb.uri.reveal().startswith("sqlite"):
            mongodb = replace(mongodb, uri=StoreUri(f"sqlite:///{self._folder}/built.db"))
        kafka = replace(settings.kafka, bootstrap_servers=NOWHERE)
        DataConsumer(replace(settings, kafka=kafka, mongodb=mongodb)).close()
