"""The logs of the profile elk: from the files that the services write to what one finds in Elasticsearch."""

import json
import os
import re
import shutil
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
from tests.stack import Stack
from tests.test_stack_files import COMPOSE, ROOT, SETTINGS, script, services

FILES = ROOT / "monitoring" / "elk"
FILEBEAT = (FILES / "filebeat.yml").read_text("utf-8")
PATHS = ["/logs/*.jsonl", "/logs/*.jsonl.[0-9]"]
TEMPLATE = json.loads((FILES / "template.json").read_text("utf-8"))
VIEW = [json.loads(line) for line in (FILES / "view.ndjson").read_text("utf-8").splitlines()]
PASSWORDS = {"ELASTIC_PASSWORD": "elastic1", "KIBANA_PASSWORD": "kibana1", "FILEBEAT_PASSWORD": "filebeat1"}
FIELDS_AT_MOST = 200

Json = dict[str, Any]

elk = script("elk")


# -- the stack's files


def test_the_profile_has_these_services_and_nothing_else_is_in_one() -> None:
    profiled = [name for name, text in services().items() if "profiles: [elk]\n" in text]

    assert profiled == ["elasticsearch", "logs-index", "kibana", "logs-view", "filebeat"]
    assert COMPOSE.count("profiles:") == len(profiled)


@pytest.mark.parametrize(("set_up", "waits"), [("logs-index", "kibana"), ("logs-view", "filebeat")])
def test_a_service_that_stays_waits_for_a_set_up_else_its_end_would_fail_up_wait(set_up: str, waits: str) -> None:
    assert f"{set_up}: {{condition: service_completed_successfully}}" in services()[waits]


def test_filebeat_sees_the_log_files_alone_and_cannot_change_them() -> None:
    mounts = re.findall(r"^      - (\S+:/\S+)", services()["filebeat"], re.MULTILINE)

    assert mounts == [
        "./monitoring/elk/filebeat.yml:/usr/share/filebeat/filebeat.yml:ro",
        "filebeat-data:/usr/share/filebeat/data",
        "logs:/logs:ro",
    ]


@pytest.mark.parametrize("name", ["producer", "consumer"])
def test_a_service_writes_its_files_whether_the_profile_runs_or_not(name: str) -> None:
    assert "LOG_DIR: /app/logs" in services()[name]
    assert "      - logs:/app/logs\n" in services()[name]
    assert "-m 755 /app/logs" in (ROOT / name / "Dockerfile").read_text("utf-8")  # Filebeat has another uid


def test_elasticsearch_asks_for_a_password() -> None:
    assert 'xpack.security.enabled: "true"' in services()["elasticsearch"]


# -- Filebeat and Kibana


@pytest.mark.parametrize(
    ("name", "is_read"),
    [("producer-1.jsonl", True), ("consumer-12.jsonl", True), ("consumer-1.jsonl.2", True), ("consumer-1.lock", False)],
)
def test_filebeat_reads_every_file_of_lines_once(name: str, is_read: bool) -> None:
    assert f'    paths: [{PATHS[0]}, "{PATHS[1]}"]' in FILEBEAT
    assert sum(fnmatch(f"/logs/{name}", path) for path in PATHS) == is_read


def test_filebeat_fills_the_stream_that_the_set_up_makes_and_makes_none() -> None:
    assert f"\n  index: {elk.STREAM}\n" in FILEBEAT
    assert "setup.template.enabled: false" in FILEBEAT
    assert "setup.ilm.enabled: false" in FILEBEAT


def test_the_view_shows_fields_that_are_mapped_in_the_stream_that_is_filled() -> None:
    data_view, *searches = VIEW
    known = {"timestamp", *mapped(TEMPLATE["template"]["mappings"]["properties"])}

    assert data_view["attributes"]["title"] == elk.STREAM
    assert len(searches) == 2
    for search in searches:
        assert [reference["id"] for reference in search["references"]] == [data_view["id"]]
        assert set(search["attributes"]["columns"]) <= known


def mapped(properties: Mapping[str, Json], within: str = "") -> dict[str, str]:
    """Each field with its type."""
    fields: dict[str, str] = {}
    for name, field in properties.items():
        if "properties" in field:
            fields |= mapped(field["properties"], f"{within}{name}.")
        else:
            fields[within + name] = field["type"]
    return fields


# -- the set-up, with a server of ours in the place of Elastic's


class Asked(NamedTuple):
    method: str
    path: str
    user: str
    body: bytes


class FakeElastic:
    """Answers every request with 200 and {}, or with what it was told for its path, once each."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answers: dict[str, list[tuple[int, Json]]] = {}
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                fake.asked.append(Asked(self.command, self.path, self.headers["Authorization"], body))
                told = fake.answers.get(self.path, [])
                status, answer = told.pop(0) if told else (200, {})
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            do_PUT = do_POST = answer  # noqa: N815 - their names there

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its own name there
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


def take(fake: FakeElastic, steps: list[Any]) -> None:
    server = elk.Server(fake.url, "elastic1", patience=5)
    for step in steps:
        server.take(step)


def test_all_is_there_before_the_first_line_comes(fake: FakeElastic) -> None:
    take(fake, [*elk.users(PASSWORDS), *elk.stream(FILES, 14)])

    assert [(asked.method, asked.path) for asked in fake.asked] == [
        ("POST", "/_security/user/kibana_system/_password"),
        ("PUT", "/_security/role/pubsub-logs-writer"),
        ("PUT", "/_security/user/filebeat"),
        ("PUT", "/_ingest/pipeline/pubsub-logs"),
        ("PUT", "/_index_template/pubsub-logs"),
        ("PUT", "/_data_stream/pubsub-logs"),
        ("PUT", "/_data_stream/pubsub-logs/_lifecycle"),
    ]
    assert {asked.user for asked in fake.asked} == {"Basic ZWxhc3RpYzplbGFzdGljMQ=="}


def test_old_lines_are_deleted_after_the_days_of_env_in_a_new_stream_and_in_an_old_one() -> None:
    steps = {step.path: step.body for step in elk.stream(FILES, 14)}

    assert steps["/_index_template/pubsub-logs"]["template"]["lifecycle"] == {"data_retention": "14d"}
    assert steps["/_data_stream/pubsub-logs/_lifecycle"] == {"data_retention": "14d"}
    assert int(SETTINGS["LOGS_RETENTION_DAYS"]) > 0


def test_a_line_that_elasticsearch_refuses_is_kept_beside_the_others() -> None:
    assert TEMPLATE["template"]["data_stream_options"] == {"failure_store": {"enabled": True}}


def test_filebeat_may_add_lines_and_nothing_else() -> None:
    role, user = elk.users(PASSWORDS)[1:]

    assert role.body["cluster"] == ["monitor"]
    assert role.body["indices"] == [{"names": ["pubsub-logs"], "privileges": ["create_doc", "auto_configure"]}]
    assert user.body["roles"] == ["pubsub-logs-writer"]


def test_a_stream_that_is_there_already_is_well(fake: FakeElastic) -> None:
    there = {"error": {"type": "resource_already_exists_exception"}}
    fake.answers["/_data_stream/pubsub-logs"] = [(400, there)]

    take(fake, elk.stream(FILES, 14))

    assert len(fake.asked) == 4


def test_a_server_that_is_still_starting_is_waited_for(fake: FakeElastic) -> None:
    fake.answers["/_ingest/pipeline/pubsub-logs"] = [(503, {"error": "no master"})]

    take(fake, elk.stream(FILES, 14))

    assert len(fake.asked) == 5


def test_what_is_refused_is_named_with_the_reason(fake: FakeElastic) -> None:
    fake.answers["/_index_template/pubsub-logs"] = [(400, {"error": "unknown field"})]

    with pytest.raises(elk.Refused, match=r"the template: 400 .*unknown field"):
        take(fake, elk.stream(FILES, 14))


def test_a_wrong_password_is_told_with_the_way_out(fake: FakeElastic) -> None:
    fake.answers["/_ingest/pipeline/pubsub-logs"] = [(401, {})]

    with pytest.raises(elk.Refused, match="Rotating passwords"):
        take(fake, elk.stream(FILES, 14))


@pytest.mark.parametrize("password", ["a,b,c,d", "'quoted'", "12345678", "$HOME/x", "short", ""])
def test_a_password_that_filebeat_would_misread_is_refused(password: str) -> None:
    with pytest.raises(elk.Refused, match="FILEBEAT_PASSWORD must be"):
        elk.users({**PASSWORDS, "FILEBEAT_PASSWORD": password})


def test_the_passwords_of_env_are_taken() -> None:
    assert len(elk.users({name: SETTINGS[name] for name in PASSWORDS})) == 3


def test_the_view_is_given_to_kibana_whole(fake: FakeElastic) -> None:
    objects = (FILES / "view.ndjson").read_bytes()
    fake.answers["/api/saved_objects/_import?overwrite=true"] = [(200, {"success": True, "successCount": 3})]

    elk.load_view(elk.Server(fake.url, "elastic1"), objects)

    assert objects in fake.asked[0].body


def test_a_view_that_kibana_does_not_take_is_an_error(fake: FakeElastic) -> None:
    answer = {"success": False, "errors": [{"error": {"type": "missing_references"}}]}
    fake.answers["/api/saved_objects/_import?overwrite=true"] = [(200, answer)]

    with pytest.raises(elk.Refused, match="missing_references"):
        elk.load_view(elk.Server(fake.url, "elastic1"), b"{}")


# -- lines of the real services

MESSAGES = [{"id": "well"}, {"id": "wrong", "metadata": 5}, {"id": "unforeseen", "name": "divide"}]
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
    """What both services write: a start, broken messages, a step that raises, a broker that is away, a stop."""
    folder = tmp_path_factory.mktemp("logs")
    environ = {**os.environ, "LOG_DIR": str(folder), "METRICS_PORT": "0", "KAFKA_TOPIC": "t", "PYTHONUNBUFFERED": "1"}
    away = {**environ, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "PRODUCER_MAX_RETRIES": "0"}
    away |= {"PRODUCER_DELIVERY_TIMEOUT_MS": "1000", "PRODUCER_UNDELIVERED_DIR": str(folder / "undelivered")}
    with EmbeddedBroker({"t": 1, "t.dlq": 1}) as broker:
        environ |= {"KAFKA_BOOTSTRAP_SERVERS": broker.address, "KAFKA_DEAD_LETTER_TOPIC": "t.dlq"}
        environ |= {"MONGODB_URI": f"sqlite:///{folder}/store", "CONSUMER_MAX_RETRIES": "0"}
        environ |= {"PRODUCER_UNDELIVERED_DIR": str(folder / "undelivered")}
        _run_producer(environ, given="".join(f"{json.dumps(message)}\n" for message in MESSAGES))
        _run_producer(away, given='{"id": "away"}\n')
        _run_consumer_until_parked(environ, 2)
    return sorted(folder.glob("*.jsonl"))


def _run_producer(environ: Mapping[str, str], given: str) -> None:
    command = [sys.executable, "-m", "src.producer", "--input", "-"]
    subprocess.run(command, cwd=ROOT / "producer", env=environ, input=given, text=True, capture_output=True, timeout=60)


def _run_consumer_until_parked(environ: Mapping[str, str], letters: int) -> None:
    command = [sys.executable, "-c", DIVIDING]
    with subprocess.Popen(command, cwd=ROOT / "consumer", env=environ, stdout=subprocess.PIPE, text=True) as consumer:
        assert consumer.stdout is not None
        for line in consumer.stdout:
            letters -= sum(json.loads(line).get("reasons", {}).values())
            if letters <= 0:
                consumer.terminate()


def lines_of(files: list[Path]) -> list[str]:
    return [line for file in files for line in file.read_text("utf-8").splitlines()]


def test_each_service_has_its_file(log_files: list[Path]) -> None:
    assert [file.name for file in log_files] == ["consumer-1.jsonl", "producer-1.jsonl"]


def test_filebeat_can_tell_the_files_of_replicas_apart_by_their_first_bytes(log_files: list[Path]) -> None:
    (length,) = re.findall(r"fingerprint\.length: (\d+)", FILEBEAT)

    for file in log_files:
        first = file.read_bytes()
        assert len(first) > int(length)
        assert b'"host": "' in first[: int(length)]


def test_a_field_has_the_same_kind_in_every_line(log_files: list[Path]) -> None:
    kinds: dict[str, set[str]] = {}
    for line in lines_of(log_files):
        for name, value in json.loads(line).items():
            kinds.setdefault(name, set()).add(_kind(value))

    assert {name: found for name, found in kinds.items() if len(found) > 1} == {}
    assert {"reason", "reasons", "partitions", "exc_info", "host"} <= set(kinds)


def _kind(value: object) -> str:
    if isinstance(value, list):
        return _kind(value[0]) if value else "number"
    return {str: "text", dict: "object", bool: "truth"}.get(type(value), "number")


# -- Elasticsearch itself


class Elasticsearch:
    """The one of the compose file, with the stream as the project's set-up makes it."""

    def __init__(self, url: str, password: str) -> None:
        self._server = elk.Server(url, password)
        self.sent = 0
        for step in self._steps():
            self._server.take(step)

    def _steps(self) -> list[Any]:
        steps = elk.stream(FILES, 14)
        if self.ask("GET", "/")["version"].get("distribution") == "opensearch":
            return [_without_what_only_elasticsearch_has(step) for step in steps[:-1]]
        return [*elk.users(PASSWORDS), *steps]

    def ask(self, method: str, path: str, body: Json | None = None) -> Json:
        return dict(self._server.ask(method, path, body and json.dumps(body).encode(), "application/json"))

    def add(self, lines: list[str]) -> list[Json]:
        """As Filebeat does; the answer for each line."""
        actions = [json.dumps({"create": {}}) + "\n" + json.dumps(self._shipped(line)) + "\n" for line in lines]
        body = "".join(actions).encode()
        answer = self._server.ask("POST", f"/{elk.STREAM}/_bulk?refresh=true", body, "application/x-ndjson")
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
        """Lines in which each of these fields has this value; `__` stands for the dot."""
        clauses = [{"term": {name.replace("__", "."): value}} for name, value in terms.items()]
        return self.search({"bool": {"filter": clauses}})

    def search(self, query: Json) -> list[Json]:
        answer = self.ask("POST", f"/{elk.STREAM}/_search", {"query": query, "size": 1000})
        return list(answer["hits"]["hits"])

    def fields(self) -> dict[str, str]:
        (index,) = self.ask("GET", f"/{elk.STREAM}/_mapping").values()
        return mapped(index["mappings"]["properties"])


def _without_what_only_elasticsearch_has(step: Any) -> Any:
    """OpenSearch knows no lifecycle of a stream, no store of failures, and takes no fields beyond the limit."""
    if "_index_template" not in step.path:
        return step
    template = dict(step.body["template"])
    settings = {name: value for name, value in template["settings"].items() if "ignore_dynamic" not in name}
    kept = {name: value for name, value in template.items() if name not in ("lifecycle", "data_stream_options")}
    return step._replace(body={**step.body, "template": {**kept, "settings": settings}})


@pytest.fixture(scope="module")
def elasticsearch() -> Iterator[Elasticsearch]:
    image = SETTINGS["ELASTICSEARCH_IMAGE"]
    if not _has(image):
        pytest.skip(f"{image} is not on this machine and can't be pulled: the template was not tried on Elasticsearch")
    stack = Stack(f"kafka-pubsub-logs-{os.getpid()}", {"ELASTICSEARCH_HOST_PORT": "0"})
    try:
        stack.up("elasticsearch")
        address = stack.compose("port", "elasticsearch", "9200").strip()
        password = stack.compose("exec", "-T", "elasticsearch", "printenv", "ELASTIC_PASSWORD").strip()
        yield Elasticsearch(f"http://{address}", password)
    finally:
        stack.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--rmi", "local")


def _has(image: str) -> bool:
    if shutil.which("docker") is None:
        return False
    tries = (["docker", "image", "inspect", image], ["docker", "pull", "--quiet", image])
    return any(subprocess.run(command, capture_output=True).returncode == 0 for command in tries)


@pytest.fixture(scope="module")
def found(elasticsearch: Elasticsearch, log_files: list[Path]) -> Elasticsearch:
    """With the lines of the real services in it."""
    answers = elasticsearch.add(lines_of(log_files))
    assert [answer["error"] for answer in answers if answer["status"] != 201] == []
    return elasticsearch


@pytest.mark.docker
def test_every_line_is_found_with_all_its_fields(found: Elasticsearch, log_files: list[Path]) -> None:
    for line in lines_of(log_files):
        fields = json.loads(line)
        same = found.find(**{"@timestamp": fields["time"], "log__logger": fields["logger"]})
        wanted = {"log__level": fields["level"], "service__name": fields["service"], "host__name": fields["host"]}

        assert fields["message"] in [hit["_source"]["message"] for hit in same]
        assert len(found.find(**{"@timestamp": fields["time"]}, **wanted)) > 0
        assert [hit for hit in same if "_ignored" in hit or "tags" in hit["_source"]] == []


@pytest.mark.docker
def test_an_operator_finds_what_he_asks_for(found: Elasticsearch) -> None:
    errors = found.find(log__level="ERROR", service__name="producer")
    partitions = found.find(pubsub__partitions=0, service__name="consumer")
    reasons = found.search({"match_phrase": {"pubsub.reason.text": "connection refused"}})
    parked = found.search({"range": {"pubsub.reasons.processing_failed": {"gte": 1}}})

    assert "messages given up" in [hit["_source"]["message"] for hit in errors]
    assert "partitions assigned" in [hit["_source"]["message"] for hit in partitions]
    assert {hit["_source"]["message"] for hit in reasons} == {"broker unreachable"}
    assert [hit["_source"]["message"] for hit in parked] == ["messages parked"]


@pytest.mark.docker
def test_a_traceback_is_one_text_in_its_line(found: Elasticsearch) -> None:
    (hit,) = found.search({"match": {"error.stack_trace": "ZeroDivisionError"}})

    assert hit["_source"]["message"] == "processing failed"
    assert hit["_source"]["pubsub"] == {"reason": "ZeroDivisionError"}
    assert "\n" in hit["_source"]["error"]["stack_trace"]


@pytest.mark.docker
def test_times_are_dates(found: Elasticsearch) -> None:
    assert found.search({"range": {"@timestamp": {"gte": "now-1h", "lte": "now+1m"}}})
    assert found.search({"range": {"@timestamp": {"lte": "now-1h"}}}) == []


@pytest.mark.docker
def test_a_line_that_is_no_json_object_is_kept_as_it_is(elasticsearch: Elasticsearch) -> None:
    lines = ["12:34:56 INFO  consumer  started", "{torn", "5", '{"time": "yesterday"}', "null", "[]", ""]

    answers = elasticsearch.add(lines)

    kept = elasticsearch.find(tags="not_parsed")
    assert {answer["status"] for answer in answers} == {201}
    assert sorted(hit["_source"]["message"] for hit in kept) == sorted(lines)


def event(**fields: object) -> str:
    return json.dumps({"time": "2026-01-01T00:00:00.000Z", "level": "INFO", "message": "of the future", **fields})


@pytest.mark.docker
def test_a_field_that_changes_its_kind_costs_no_line(elasticsearch: Elasticsearch) -> None:
    lines = [event(size=1), event(size=1.5), event(size="large"), event(size=None), event(size=[1, "x"])]
    lines += [event(who="me"), event(who=5), event(who=True)]
    lines += [event(deep={"a": {"b": 1}}), event(deep=1), event(deep="text")]

    answers = elasticsearch.add(lines)

    assert [answer["error"] for answer in answers if answer["status"] != 201] == []
    assert len(elasticsearch.find(pubsub__size=1)) == 2


@pytest.mark.docker
def test_fields_without_number_do_not_fill_the_mapping(elasticsearch: Elasticsearch) -> None:
    elasticsearch.add([event(deep={f"key-{number}": 1 for number in range(300)})])
    elasticsearch.add([event(**{f"field-{batch}-{number}": 1 for number in range(30)}) for batch in range(10)])

    assert len(elasticsearch.fields()) < FIELDS_AT_MOST
    assert len(elasticsearch.add([event(stored=1)])) == 1
