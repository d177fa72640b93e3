"""Prepares Elasticsearch and Kibana for the services' logs, in the one-shots `logs-index` and `logs-view`.

They run at every `up` with the profile elk, and bring what is there to what monitoring/elk and .env say today.
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
TIMEOUT = 30.0  # seconds for one answer
PATIENCE = 180.0  # seconds for a server that is not ready yet
SIMPLE = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9_-]{6,}")  # Elasticsearch wants six characters at least
LOGIN_REFUSED = (
    "Elasticsearch refuses elastic's password. It was set at the first start, and a later change in .env or secrets/"
    " does not reach it: put the old one back, or see docs/operations.md, Rotating passwords"
)

Json = dict[str, Any]


class Refused(Exception):
    """The server's answer is no; the text is its reason."""


class Step(NamedTuple):
    what: str
    method: str
    path: str
    body: Json | None
    done_already: str = ""
    """The type of the error that says so."""


class Server:
    """Elasticsearch or Kibana, asked as the user `elastic`."""

    def __init__(self, url: str, password: str, patience: float = PATIENCE) -> None:
        self._url = url
        self._patience = patience
        login = b64encode(f"elastic:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {login}", "kbn-xsrf": "true"}
        self._open = build_opener(ProxyHandler({})).open

    def take(self, step: Step) -> None:
        """Raises Refused."""
        body = None if step.body is None else json.dumps(step.body).encode()
        try:
            self.ask(step.method, step.path, body, "application/json")
        except Refused as error:
            if not step.done_already or step.done_already not in str(error):
                raise Refused(f"{step.what}: {error}") from error

    def ask(self, method: str, path: str, body: bytes | None, content_type: str) -> Json:
        """The answer of a server that may still be starting. Raises Refused."""
        headers = {**self._headers, "Content-Type": content_type}
        request = Request(self._url + path, body, headers, method=method)  # noqa: S310 - a URL of ours
        deadline = monotonic() + self._patience
        while True:
            try:
                with self._open(request, timeout=TIMEOUT) as answer:
                    return dict(json.load(answer))
            except HTTPError as error:
                if error.code == 401:
                    raise Refused(LOGIN_REFUSED) from error
                if error.code < 500 or monotonic() > deadline:
                    raise Refused(f"{error.code} {error.read().decode(errors='replace')[:2000]}") from error
            except (URLError, TimeoutError) as error:
                if monotonic() > deadline:
                    raise Refused(f"{self._url} does not answer: {error}") from error
            Event().wait(1)


def prepare_index(environ: Mapping[str, str]) -> None:
    elasticsearch = Server(ELASTICSEARCH, environ["ELASTIC_PASSWORD"])
    for step in [*users(environ), *stream(FILES, int(environ["LOGS_RETENTION_DAYS"]))]:
        elasticsearch.take(step)
        print(f"{step.what}: ok")


def users(environ: Mapping[str, str]) -> list[Step]:
    """Kibana's built-in user, and Filebeat's, which may add lines and nothing else. Raises Refused."""
    role = f"{STREAM}-writer"
    rights = {
        "cluster": ["monitor"],
        "indices": [{"names": [STREAM], "privileges": ["create_doc", "auto_configure"]}],
    }
    kibana = {"password": _simple("KIBANA_PASSWORD", environ)}
    filebeat = {"password": _simple("FILEBEAT_PASSWORD", environ), "roles": [role]}
    return [
        Step("Kibana's password", "POST", "/_security/user/kibana_system/_password", kibana),
        Step("the rights of Filebeat", "PUT", f"/_security/role/{role}", rights),
        Step("the user of Filebeat", "PUT", "/_security/user/filebeat", filebeat),
    ]


def _simple(name: str, environ: Mapping[str, str]) -> str:
    """Kibana and Filebeat read it out of a configuration file, where other characters may have a meaning."""
    if not SIMPLE.fullmatch(environ[name]):
        raise Refused(f"{name} must be six or more letters, digits, _ or -, with a letter among them")
    return environ[name]


def stream(files: Path, days: int) -> list[Step]:
    """Where the lines go. A template is for streams to come, so the one that is there is told the retention too."""
    retention = {"data_retention": f"{days}d"}
    template = json.loads((files / "template.json").read_text(encoding="utf-8"))
    template["template"]["lifecycle"] = retention
    return [
        Step("the pipeline", "PUT", f"/_ingest/pipeline/{STREAM}", json.loads((files / "pipeline.json").read_text())),
        Step("the template", "PUT", f"/_index_template/{STREAM}", template),
        Step("the stream", "PUT", f"/_data_stream/{STREAM}", None, "resource_already_exists_exception"),
        Step(f"lines are kept for {days} days", "PUT", f"/_data_stream/{STREAM}/_lifecycle", retention),
    ]


def prepare_view(environ: Mapping[str, str]) -> None:
    load_view(Server(KIBANA, environ["ELASTIC_PASSWORD"]), (FILES / "view.ndjson").read_bytes())


def load_view(kibana: Server, objects: bytes) -> None:
    """Raises Refused."""
    boundary = "view-of-the-logs"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="view.ndjson"\r\n'
    body = f"{head}Content-Type: application/ndjson\r\n\r\n".encode() + objects + f"\r\n--{boundary}--\r\n".encode()
    kind = f"multipart/form-data; boundary={boundary}"
    answer = kibana.ask("POST", "/api/saved_objects/_import?overwrite=true", body, kind)
    if not answer["success"]:
        raise Refused(f"the view: {json.dumps(answer.get('errors'))}")
    print(f"the view: {answer['successCount']} objects")


SET_UPS: dict[str, Callable[[Mapping[str, str]], None]] = {"index": prepare_index, "view": prepare_view}


def main(arguments: list[str], environ: Mapping[str, str]) -> int:
    try:
        SET_UPS[arguments[0]](environ)
    except Refused as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
