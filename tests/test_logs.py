"""Logs of the elk profile, from the files written by the services to searches in Elasticsearch."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import pytest

from local.broker import EmbeddedBroker
from tests.docker_engine import require_images
from tests.stack import Stack
from tests.test_stack_files import COMPOSE, ROOT, SETTINGS, script, services

FILES = ROOT / "monitoring" / "elk"
FILEBEAT = (FILES / "filebeat.yml").read_text("utf-8")
PATHS = ["/logs/*.jsonl", "/logs/*.jsonl.[0-9]"]
TEMPLATE = json.loads((FILES / "template.json").read_text("utf-8"))
VIEW = [json.loads(line) for line in (FILES / "view.ndjson").read_text("utf-8").splitlines()]
PASSWORDS = {"ELASTIC_PASSWORD": "elastic1", "KIBANA_PASSWORD": "kibana1", "FILEBEAT_PASSWORD": "filebeat1"}
MAX_FIELDS = 200

Json = dict[str, Any]

elk = script("elk")


# -- Compose services


def test_the_profile_contains_exactly_these_services() -> None:
    profiled = [name for name, text in services().items() if "profiles: [elk]\n" in text]

    assert profiled == ["elasticsearch", "logs-index", "kibana", "logs-view", "filebeat"]
    assert COMPOSE.count("profiles:") == len(profiled)


@pytest.mark.parametrize(("job", "dependent"), [("logs-index", "kibana"), ("logs-view", "filebeat")])
def test_a_long_running_service_depends_on_each_job_so_that_up_wait_succeeds(job: str, dependent: str) -> None:
    assert f"{job}: {{condition: service_completed_successfully}}" in services()[dependent]


def test_filebeat_mounts_only_the_log_files_and_read_only() -> None:
    mounts = re.findall(r"^      - (\S+:/\S+)", services()["filebeat"], re.MULTILINE)

    assert mounts == [
        "./monitoring/elk/filebeat.yml:/usr/share/filebeat/filebeat.yml:ro",
        "filebeat-data:/usr/share/filebeat/data",
        "logs:/logs:ro",
    ]


@pytest.mark.parametrize("name", ["producer", "consumer"])
def test_a_service_writes_log_files_regardless_of_the_profile(name: str) -> None:
    assert "LOG_DIR: /app/logs" in services()[name]
    assert "      - logs:/app/logs\n" in services()[name]
    assert "-m 755 /app/logs" in (ROOT / name / "Dockerfile").read_text("utf-8")  # Filebeat runs with another uid


def test_elasticsearch_security_is_enabled() -> None:
    assert 'xpack.security.enabled: "true"' in services()["elasticsearch"]


# -- Filebeat and Kibana


@pytest.mark.parametrize(
    ("name", "is_read"),
    [("producer-1.jsonl", True), ("consumer-12.jsonl", True), ("consumer-1.jsonl.2", True), ("consumer-1.lock", False)],
)
def test_filebeat_reads_every_log_file_once(name: str, is_read: bool) -> None:
    assert f'    paths: [{PATHS[0]}, "{PATHS[1]}"]' in FILEBEAT
    assert sum(fnmatch(f"/logs/{name}", path) for path in PATHS) == is_read


def test_filebeat_writes_to_the_stream_of_the_setup_job_and_creates_none() -> None:
    assert f"\n  index: {elk.STREAM}\n" in FILEBEAT
    assert "setup.template.enabled: false" in FILEBEAT
    assert "setup.ilm.enabled: false" in FILEBEAT


def test_the_saved_searches_show_mapped_fields_of_the_data_stream() -> None:
    data_view, *searches = VIEW
    known = {"timestamp", *mapped(TEMPLATE["template"]["mappings"]["properties"])}

    assert data_view["attributes"]["title"] == elk.STREAM
    assert len(searches) == 2
    for search in searches:
        assert [reference["id"] for reference in search["references"]] == [data_view["id"]]
        assert set(search["attributes"]["columns"]) <= known


def mapped(properties: Mapping[str, Json], within: str = "") -> dict[str, str]:
    """Maps each field to its type."""
    fields: dict[str, str] = {}
    for name, field in properties.items():
        if "properties" in field:
            fields |= mapped(field["properties"], f"{within}{name}.")
        else:
            fields[within + name] = field["type"]
    return fields


# -- the setup jobs, against a fake server


class Received(NamedTuple):
    method: str
    path: str
    user: str
    body: bytes


class FakeElastic:
    """Answers requests with the responses queued for their path, or else with 200 and {}."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.responses: dict[str, list[tuple[int, Json]]] = {}
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                fake.received.append(Received(self.command, self.path, self.headers["Authorization"], body))
                queued = fake.responses.get(self.path, [])
                status, response = queued.pop(0) if queued else (200, {})
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(response).encode())

            do_PUT = do_POST = answer  # noqa: N815 - names required by the base class

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - name of the base class
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def fake() -> Iterator[FakeElastic]:
    fake = FakeElastic()
    yield fake
    fake.close()


def apply(fake: FakeElastic, steps: list[Any]) -> None:
    server = elk.Server(fake.url, "elastic1", startup_timeout=5)
    for step in steps:
        server.apply(step)


def test_users_pipeline_template_and_stream_are_created_in_this_order(fake: FakeElastic) -> None:
    apply(fake, [*elk.user_steps(PASSWORDS), *elk.stream_steps(FILES, 14)])

    assert [(request.method, request.path) for request in fake.received] == [
        ("POST", "/_security/user/kibana_system/_password"),
        ("PUT", "/_security/role/pubsub-logs-writer"),
        ("PUT", "/_security/user/filebeat"),
        ("PUT", "/_ingest/pipeline/pubsub-logs"),
        ("PUT", "/_index_template/pubsub-logs"),
        ("PUT", "/_data_stream/pubsub-logs"),
        ("PUT", "/_data_stream/pubsub-logs/_lifecycle"),
    ]
    assert {request.user for request in fake.received} == {"Basic ZWxhc3RpYzplbGFzdGljMQ=="}


def test_the_retention_of_env_applies_to_new_and_existing_streams() -> None:
    steps = {step.path: step.body for step in elk.stream_steps(FILES, 14)}

    assert steps["/_index_template/pubsub-logs"]["template"]["lifecycle"] == {"data_retention": "14d"}
    assert steps["/_data_stream/pubsub-logs/_lifecycle"] == {"data_retention": "14d"}
    assert int(SETTINGS["LOGS_RETENTION_DAYS"]) > 0


def test_a_rejected_line_goes_to_the_failure_store() -> None:
    assert TEMPLATE["template"]["data_stream_options"] == {"failure_store": {"enabled": True}}


def test_filebeat_may_only_append_documents() -> None:
    role, user = elk.user_steps(PASSWORDS)[1:]

    assert role.body["cluster"] == ["monitor"]
    assert role.body["indices"] == [{"names": ["pubsub-logs"], "privileges": ["create_doc", "auto_configure"]}]
    assert user.body["roles"] == ["pubsub-logs-writer"]


def test_an_existing_stream_is_not_an_error(fake: FakeElastic) -> None:
    exists = {"error": {"type": "resource_already_exists_exception"}}
    fake.responses["/_data_stream/pubsub-logs"] = [(400, exists)]

    apply(fake, elk.stream_steps(FILES, 14))

    assert len(fake.received) == 4


def test_requests_are_retried_while_the_server_is_starting(fake: FakeElastic) -> None:
    fake.responses["/_ingest/pipeline/pubsub-logs"] = [(503, {"error": "no master"})]

    apply(fake, elk.stream_steps(FILES, 14))

    assert len(fake.received) == 5


def test_a_failed_step_is_reported_with_its_name_and_reason(fake: FakeElastic) -> None:
    fake.responses["/_index_template/pubsub-logs"] = [(400, {"error": "unknown field"})]

    with pytest.raises(elk.SetupError, match=r"index template: 400 .*unknown field"):
        apply(fake, elk.stream_steps(FILES, 14))


def test_a_wrong_password_error_points_to_the_documentation(fake: FakeElastic) -> None:
    fake.responses["/_ingest/pipeline/pubsub-logs"] = [(401, {})]

    with pytest.raises(elk.SetupError, match="Rotating passwords"):
        apply(fake, elk.stream_steps(FILES, 14))


@pytest.mark.parametrize("password", ["a,b,c,d", "'quoted'", "12345678", "$HOME/x", "short", ""])
def test_a_password_that_filebeat_would_misread_is_rejected(password: str) -> None:
    with pytest.raises(elk.SetupError, match="FILEBEAT_PASSWORD must have"):
        elk.user_steps({**PASSWORDS, "FILEBEAT_PASSWORD": password})


def test_the_passwords_of_env_are_accepted() -> None:
    assert len(elk.user_steps({name: SETTINGS[name] for name in PASSWORDS})) == 3


def test_the_saved_objects_are_uploaded_unchanged(fake: FakeElastic) -> None:
    objects = (FILES / "view.ndjson").read_bytes()
    fake.responses["/api/saved_objects/_import?overwrite=true"] = [(200, {"success": True, "successCount": 3})]

    elk.import_objects(elk.Server(fake.url, "elastic1"), objects)

    assert objects in fake.received[0].body


def test_saved_objects_that_kibana_rejects_are_an_error(fake: FakeElastic) -> None:
    answer = {"success": False, "errors": [{"error": {"type": "missing_references"}}]}
    fake.responses["/api/saved_objects/_import?overwrite=true"] = [(200, answer)]

    with pytest.raises(elk.SetupError, match="missing_references"):
        elk.import_objects(elk.Server(fake.url, "elastic1"), b"{}")


# -- log lines of the real services

MESSAGES = [{"id": "valid"}, {"id": "invalid", "metadata": 5}, {"id": "error", "name": "divide"}]
DIVIDING = """
import os
from threading import Event
from src.consumer import DataConsumer
from src.data_processor import DataProcessor
from src.settings import DEFAULT_FILE, VERSION, load_settings
from src.utils.logging import configure
from src.utils.shutdown import stopping_on_signals

class Dividing(DataProcessor):
    def check(self, message):
        return {**super().check(message), "share": 1 / (message.get("name") != "divide")}

settings = load_settings(DEFAULT_FILE, os.environ)
configure(service="consumer", version=VERSION, log_dir=settings.logging.log_dir)
stop = Event()
with stopping_on_signals(stop), DataConsumer(settings, processor=Dividing(), stop=stop) as consumer:
    consumer.run()
"""


@pytest.fixture(scope="module")
def log_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Logs of both services: start, invalid messages, an exception, an unavailable broker, stop."""
    folder = tmp_path_factory.mktemp("logs")
    environ = {**os.environ, "LOG_DIR": str(folder), "METRICS_PORT": "0", "KAFKA_TOPIC": "t", "PYTHONUNBUFFERED": "1"}
    unavailable = {**environ, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "PRODUCER_MAX_RETRIES": "0"}
    unavailable |= {"PRODUCER_DELIVERY_TIMEOUT_MS": "1000", "PRODUCER_UNDELIVERED_DIR": str(folder / "undelivered")}
    with EmbeddedBroker({"t": 1, "t.dlq": 1}) as broker:
        environ |= {"KAFKA_BOOTSTRAP_SERVERS": broker.address, "KAFKA_DEAD_LETTER_TOPIC": "t.dlq"}
        environ |= {"MONGODB_URI": f"sqlite:///{folder}/store", "CONSUMER_MAX_RETRIES": "0"}
        environ |= {"PRODUCER_UNDELIVERED_DIR": str(folder / "undelivered")}
        _run_producer(environ, stdin="".join(f"{json.dumps(message)}\n" for message in MESSAGES))
        _run_producer(unavailable, stdin='{"id": "late"}\n')
        _run_consumer_until_dead_lettered(environ, 2)
    return sorted(folder.glob("*.jsonl"))


def _run_producer(environ: Mapping[str, str], stdin: str) -> None:
    command = [sys.executable, "-m", "src.producer", "--input", "-"]
    subprocess.run(command, cwd=ROOT / "producer", env=environ, input=stdin, text=True, capture_output=True, timeout=60)


def _run_consumer_until_dead_lettered(environ: Mapping[str, str], dead_letters: int) -> None:
    command = [sys.executable, "-c", DIVIDING]
    with subprocess.Popen(command, cwd=ROOT / "consumer", env=environ, stdout=subprocess.PIPE, text=True) as consumer:
        assert consumer.stdout is not None
        for line in consumer.stdout:
            dead_letters -= sum(json.loads(line).get("reasons", {}).values())
            if dead_letters <= 0:
                consumer.terminate()


def lines_of(files: list[Path]) -> list[str]:
    return [line for file in files for line in file.read_text("utf-8").splitlines()]


def test_each_service_writes_its_own_file(log_files: list[Path]) -> None:
    assert [file.name for file in log_files] == ["consumer-1.jsonl", "producer-1.jsonl"]


def test_the_fingerprint_length_distinguishes_the_files_of_replicas(log_files: list[Path]) -> None:
    (length,) = re.findall(r"fingerprint\.length: (\d+)", FILEBEAT)

    for file in log_files:
        first = file.read_bytes()
        assert len(first) > int(length)
        assert b'"host": "' in first[: int(length)]


def test_a_field_has_the_same_type_in_every_line(log_files: list[Path]) -> None:
    kinds: dict[str, set[str]] = {}
    for line in lines_of(log_files):
        for name, value in json.loads(line).items():
            if value != []:  # of any type
                kinds.setdefault(name, set()).add(_kind(value))

    assert {name: found for name, found in kinds.items() if len(found) > 1} == {}
    assert {"reason", "reasons", "partitions", "exc_info", "host"} <= set(kinds)


def _kind(value: object) -> str:
    if isinstance(value, list):
        return _kind(value[0])
    return {str: "text", dict: "object", bool: "truth"}.get(type(value), "number")


# -- Elasticsearch itself


class Elasticsearch:
    """Elasticsearch of the Compose file, with the data stream created by the setup job."""

    def __init__(self, url: str, password: str) -> None:
        self._server = elk.Server(url, password)
        self.sent = 0
        for step in self._steps():
            self._server.apply(step)

    def _steps(self) -> list[Any]:
        steps = elk.stream_steps(FILES, 14)
        if self.request("GET", "/")["version"].get("distribution") == "opensearch":
            return [_compatible_with_opensearch(step) for step in steps[:-1]]
        return [*elk.user_steps(PASSWORDS), *steps]

    def request(self, method: str, path: str, body: Json | None = None) -> Json:
        return dict(self._server.request(method, path, body and json.dumps(body).encode(), "application/json"))

    def add(self, lines: list[str]) -> list[Json]:
        """Index lines as Filebeat does. Returns the result of each."""
        actions = [json.dumps({"create": {}}) + "\n" + json.dumps(self._shipped(line)) + "\n" for line in lines]
        body = "".join(actions).encode()
        answer = self._server.request("POST", f"/{elk.STREAM}/_bulk?refresh=true", body, "application/x-ndjson")
        return [item["create"] for item in answer["items"]]

    def _shipped(self, line: str) -> Json:
        self.sent += 1
        return {
            "@timestamp": "2026-01-01T00:00:00.000Z",
            "message": line,
            "log": {"offset": self.sent, "file": {"path": "/logs/consumer-1.jsonl"}},
            "host": {"name": "filebeat"},
            "agent": {"name": "filebeat", "type": "filebeat", "version": "9.5.2"},
            "ecs": {"version": "8.0.0"},
            "input": {"type": "filestream"},
        }

    def find(self, **terms: object) -> list[Json]:
        """Lines in which the fields have these values; `__` stands for a dot."""
        clauses = [{"term": {name.replace("__", "."): value}} for name, value in terms.items()]
        return self.search({"bool": {"filter": clauses}})

    def search(self, query: Json) -> list[Json]:
        answer = self.request("POST", f"/{elk.STREAM}/_search", {"query": query, "size": 1000})
        return list(answer["hits"]["hits"])

    def fields(self) -> dict[str, str]:
        (index,) = self.request("GET", f"/{elk.STREAM}/_mapping").values()
        return mapped(index["mappings"]["properties"])


def _compatible_with_opensearch(step: Any) -> Any:
    """OpenSearch has no data stream lifecycle, no failure store, and no way to ignore fields beyond the limit."""
    if "_index_template" not in step.path:
        return step
    template = dict(step.body["template"])
    settings = {name: value for name, value in template["settings"].items() if "ignore_dynamic" not in name}
    kept = {name: value for name, value in template.items() if name not in ("lifecycle", "data_stream_options")}
    return step._replace(body={**step.body, "template": {**kept, "settings": settings}})


@pytest.fixture(scope="module")
def elasticsearch() -> Iterator[Elasticsearch]:
    require_images("Elasticsearch in a container", "ELASTICSEARCH_IMAGE")
    stack = Stack(f"kafka-pubsub-logs-{os.getpid()}", {"ELASTICSEARCH_HOST_PORT": "0"})
    try:
        stack.up("elasticsearch")
        address = stack.compose("port", "elasticsearch", "9200").strip()
        password = stack.compose("exec", "-T", "elasticsearch", "printenv", "ELASTIC_PASSWORD").strip()
        yield Elasticsearch(f"http://{address}", password)
    finally:
        stack.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--rmi", "local")


@pytest.fixture(scope="module")
def found(elasticsearch: Elasticsearch, log_files: list[Path]) -> Elasticsearch:
    """Elasticsearch with the log lines of the real services indexed."""
    answers = elasticsearch.add(lines_of(log_files))
    assert [answer["error"] for answer in answers if answer["status"] != 201] == []
    return elasticsearch


@pytest.mark.docker
def test_every_line_is_indexed_with_all_its_fields(found: Elasticsearch, log_files: list[Path]) -> None:
    for line in lines_of(log_files):
        fields = json.loads(line)
        same = found.find(**{"@timestamp": fields["time"], "log__logger": fields["logger"]})
        wanted = {"log__level": fields["level"], "service__name": fields["service"], "host__name": fields["host"]}

        assert fields["message"] in [hit["_source"]["message"] for hit in same]
        assert len(found.find(**{"@timestamp": fields["time"]}, **wanted)) > 0
        assert [hit for hit in same if "_ignored" in hit or "tags" in hit["_source"]] == []


@pytest.mark.docker
def test_lines_can_be_searched_by_field(found: Elasticsearch) -> None:
    errors = found.find(log__level="ERROR", service__name="producer")
    partitions = found.find(pubsub__partitions="t[0]", service__name="consumer")
    reasons = found.search({"match_phrase": {"pubsub.reason.text": "connection refused"}})
    dead_lettered = found.search({"range": {"pubsub.reasons.processing_failed": {"gte": 1}}})

    assert "delivery failed permanently" in [hit["_source"]["message"] for hit in errors]
    assert "partitions assigned" in [hit["_source"]["message"] for hit in partitions]
    assert {hit["_source"]["message"] for hit in reasons} == {"broker unreachable"}
    assert [hit["_source"]["message"] for hit in dead_lettered] == ["messages dead-lettered"]


@pytest.mark.docker
def test_a_traceback_is_a_single_field(found: Elasticsearch) -> None:
    (hit,) = found.search({"match": {"error.stack_trace": "ZeroDivisionError"}})

    assert hit["_source"]["message"] == "processing failed"
    assert hit["_source"]["pubsub"] == {"reason": "ZeroDivisionError"}
    assert "\n" in hit["_source"]["error"]["stack_trace"]


@pytest.mark.docker
def test_timestamps_are_dates(found: Elasticsearch) -> None:
    assert found.search({"range": {"@timestamp": {"gte": "now-1h", "lte": "now+1m"}}})
    assert found.search({"range": {"@timestamp": {"lte": "now-1h"}}}) == []


@pytest.mark.docker
def test_a_line_that_is_not_a_json_object_is_kept_unchanged(elasticsearch: Elasticsearch) -> None:
    lines = ["12:34:56 INFO  consumer  started", "{truncated", "5", '{"time": "yesterday"}', "null", "[]", ""]

    answers = elasticsearch.add(lines)

    kept = elasticsearch.find(tags="not_parsed")
    assert {answer["status"] for answer in answers} == {201}
    assert sorted(hit["_source"]["message"] for hit in kept) == sorted(lines)


def event(**fields: object) -> str:
    return json.dumps({"time": "2026-01-01T00:00:00.000Z", "level": "INFO", "message": "example", **fields})


@pytest.mark.docker
def test_a_field_that_changes_its_type_loses_no_line(elasticsearch: Elasticsearch) -> None:
    lines = [event(size=1), event(size=1.5), event(size="large"), event(size=None), event(size=[1, "x"])]
    lines += [event(who="me"), event(who=5), event(who=True)]
    lines += [event(deep={"a": {"b": 1}}), event(deep=1), event(deep="text")]

    answers = elasticsearch.add(lines)

    assert [answer["error"] for answer in answers if answer["status"] != 201] == []
    assert len(elasticsearch.find(pubsub__size=1)) == 2


@pytest.mark.docker
def test_many_different_fields_do_not_exceed_the_mapping_limit(elasticsearch: Elasticsearch) -> None:
    elasticsearch.add([event(deep={f"key-{number}": 1 for number in range(300)})])
    elasticsearch.add([event(**{f"field-{batch}-{number}": 1 for number in range(30)}) for batch in range(10)])

    assert len(elasticsearch.fields()) < MAX_FIELDS
    assert len(elasticsearch.add([event(stored=1)])) == 1
