"""Configures Elasticsearch and Kibana for the services' logs; run by the Compose jobs `logs-index` and `logs-view`.

Both jobs run at every `docker compose --profile elk up` and apply the current state of monitoring/elk and .env.
"""

import json
import os
import re
import sys
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

FILES = Path("/elk")
ELASTICSEARCH = "http://elasticsearch:9200"
KIBANA = "http://kibana:5601"
STREAM = "pubsub-logs"
REQUEST_TIMEOUT = 30.0  # seconds
STARTUP_TIMEOUT = 180.0  # seconds to wait for a server that is not ready yet
SAFE_PASSWORD = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9_-]{6,}")  # Elasticsearch requires six characters
LOGIN_FAILED = (
    "Elasticsearch rejected the password of elastic. It is set at the first start only; changing it in .env or secrets/"
    ' has no effect afterwards. Restore the old password, or see "Rotating passwords" in docs/operations.md'
)

Json = dict[str, Any]


class SetupError(Exception):
    """A request failed, or a setting is invalid; the text gives the reason."""


class Step(NamedTuple):
    name: str
    method: str
    path: str
    body: Json | None
    ignored_error: str = ""
    """The type of an error that means that the step is already done."""


class Server:
    """Elasticsearch or Kibana, accessed as the user `elastic`."""

    def __init__(self, url: str, password: str, startup_timeout: float = STARTUP_TIMEOUT) -> None:
        self._url = url
        self._startup_timeout = startup_timeout
        login = b64encode(f"elastic:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {login}", "kbn-xsrf": "true"}
        self._open = build_opener(ProxyHandler({})).open

    def apply(self, step: Step) -> None:
        """Raises SetupError."""
        body = None if step.body is None else json.dumps(step.body).encode()
        try:
            self.request(step.method, step.path, body, "application/json")
        except SetupError as error:
            if not step.ignored_error or step.ignored_error not in str(error):
                raise SetupError(f"{step.name}: {error}") from error

    def request(self, method: str, path: str, body: bytes | None, content_type: str) -> Json:
        """Send a request, and retry while the server is starting. Raises SetupError."""
        headers = {**self._headers, "Content-Type": content_type}
        request = Request(self._url + path, body, headers, method=method)  # noqa: S310 - the URL is a constant
        deadline = monotonic() + self._startup_timeout
        while True:
            try:
                with self._open(request, timeout=REQUEST_TIMEOUT) as response:
                    return dict(json.load(response))
            except HTTPError as error:
                if error.code == 401:
                    raise SetupError(LOGIN_FAILED) from error
                if error.code < 500 or monotonic() > deadline:
                    raise SetupError(f"{error.code} {error.read().decode(errors='replace')[:2000]}") from error
            except (URLError, TimeoutError) as error:
                if monotonic() > deadline:
                    raise SetupError(f"{self._url} is unreachable: {error}") from error
            Event().wait(1)


def set_up_index(environ: Mapping[str, str]) -> None:
    elasticsearch = Server(ELASTICSEARCH, environ["ELASTIC_PASSWORD"])
    for step in [*user_steps(environ), *stream_steps(FILES, int(environ["LOGS_RETENTION_DAYS"]))]:
        elasticsearch.apply(step)
        print(f"{step.name}: ok")


def user_steps(environ: Mapping[str, str]) -> list[Step]:
    """Kibana's built-in user, and a user for Filebeat that may only append documents. Raises SetupError."""
    role = f"{STREAM}-writer"
    privileges = {
        "cluster": ["monitor"],
        "indices": [{"names": [STREAM], "privileges": ["create_doc", "auto_configure"]}],
    }
    kibana = {"password": _safe_password("KIBANA_PASSWORD", environ)}
    filebeat = {"password": _safe_password("FILEBEAT_PASSWORD", environ), "roles": [role]}
    return [
        Step("Kibana password", "POST", "/_security/user/kibana_system/_password", kibana),
        Step("Filebeat role", "PUT", f"/_security/role/{role}", privileges),
        Step("Filebeat user", "PUT", "/_security/user/filebeat", filebeat),
    ]


def _safe_password(name: str, environ: Mapping[str, str]) -> str:
    """Kibana and Filebeat read the password from a configuration file, where other characters are special."""
    if not SAFE_PASSWORD.fullmatch(environ[name]):
        raise SetupError(f"{name} must have six or more letters, digits, _ or -, including at least one letter")
    return environ[name]


def stream_steps(files: Path, days: int) -> list[Step]:
    """The data stream. A template affects new streams only, so the retention of an existing one is set separately."""
    retention = {"data_retention": f"{days}d"}
    template = json.loads((files / "template.json").read_text(encoding="utf-8"))
    template["template"]["lifecycle"] = retention
    return [
        Step(
            "ingest pipeline", "PUT", f"/_ingest/pipeline/{STREAM}", json.loads((files / "pipeline.json").read_text())
        ),
        Step("index template", "PUT", f"/_index_template/{STREAM}", template),
        Step("data stream", "PUT", f"/_data_stream/{STREAM}", None, "resource_already_exists_exception"),
        Step(f"retention of {days} days", "PUT", f"/_data_stream/{STREAM}/_lifecycle", retention),
    ]


def set_up_view(environ: Mapping[str, str]) -> None:
    import_objects(Server(KIBANA, environ["ELASTIC_PASSWORD"]), (FILES / "view.ndjson").read_bytes())


def import_objects(kibana: Server, objects: bytes) -> None:
    """Import saved objects into Kibana. Raises SetupError."""
    boundary = "saved-objects"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="view.ndjson"\r\n'
    body = f"{head}Content-Type: application/ndjson\r\n\r\n".encode() + objects + f"\r\n--{boundary}--\r\n".encode()
    content_type = f"multipart/form-data; boundary={boundary}"
    response = kibana.request("POST", "/api/saved_objects/_import?overwrite=true", body, content_type)
    if not response["success"]:
        raise SetupError(f"saved objects: {json.dumps(response.get('errors'))}")
    print(f"saved objects: {response['successCount']} imported")


JOBS: dict[str, Callable[[Mapping[str, str]], None]] = {"index": set_up_index, "view": set_up_view}


def main(arguments: list[str], environ: Mapping[str, str]) -> int:
    try:
        JOBS[arguments[0]](environ)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
