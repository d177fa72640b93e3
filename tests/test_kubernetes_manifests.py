"""The manifests in kubernetes/ are valid, safe, and agree with the rest of the project. No cluster is needed."""

import json
import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import prometheus_rule
import pytest
import yaml

from tests.docker_engine import image
from tests.manifests import (
    KUBERNETES,
    OVERLAYS,
    ROOT,
    Manifest,
    build,
    dangling_references,
    dangling_selectors,
    named,
    of_kind,
    pod_templates,
    schema_errors,
    title,
    unknown_login_parameters,
    unknown_trigger_keys,
    unsafe_settings,
)
from tests.test_stack_files import SETTINGS, script

SERVICES = ("producer", "consumer")
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text("utf-8")
FROM_STRIMZI = {"Secret consumer", "Secret producer", "Secret kafka-cluster-ca-cert"}
FROM_THE_OPERATOR = {"Secret mongodb"}  # the person, who creates it; see docs/kubernetes.md
EXTERNAL = {"production": FROM_STRIMZI | FROM_THE_OPERATOR}


def overlay(name: str) -> list[Manifest]:
    return build(KUBERNETES / "overlays" / name)


def container(manifests: list[Manifest], service: str) -> Manifest:
    kind = {"producer": "StatefulSet", "consumer": "Deployment"}[service]
    (found,) = named(manifests, kind, service)["spec"]["template"]["spec"]["containers"]
    return dict(found)


# --- every check passes on what is built ...


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_object_complies_with_its_schema(name: str) -> None:
    assert [error for manifest in overlay(name) for error in schema_errors(manifest)] == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_object_is_in_the_namespace_of_the_overlay(name: str) -> None:
    outside = [title(each) for each in overlay(name) if each["metadata"].get("namespace") != "kafka-pubsub"]

    assert outside == ["Namespace kafka-pubsub"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_pod_complies_with_the_restricted_security_standard(name: str) -> None:
    assert [(pod, list(unsafe_settings(template))) for pod, template in pod_templates(overlay(name))] == [
        (pod, []) for pod, _ in pod_templates(overlay(name))
    ]


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_selector_selects_a_pod(name: str) -> None:
    of_strimzi = ["PodMonitor kafka-exporter: {'strimzi.io/name': 'kafka-kafka-exporter'}"]

    assert list(dangling_selectors(overlay(name))) == (of_strimzi if name == "production" else [])


@pytest.mark.parametrize("name", OVERLAYS)
def test_everything_that_a_pod_refers_to_is_built_or_documented(name: str) -> None:
    assert dangling_references(overlay(name)) == EXTERNAL.get(name, set())


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_trigger_has_no_key_that_keda_does_not_know(name: str) -> None:
    assert [
        unknown_trigger_keys(each) for each in of_kind(overlay(name), "ScaledObject") if unknown_trigger_keys(each)
    ] == []
    assert [unknown_login_parameters(each) for each in of_kind(overlay(name), "TriggerAuthentication")] in ([], [set()])


# --- ... and fails on a wrong manifest


def change(path: str, value: Any) -> Callable[[Manifest], None]:
    """Sets the field at a dotted path; None removes it."""

    def apply(manifest: Manifest) -> None:
        *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
        target: Any = manifest
        for part in parents:
            target = target[part]
        if value is None:
            del target[last]
        else:
            target[last] = value

    return apply


@pytest.mark.parametrize(
    ("kind", "name", "path", "value"),
    [
        ("Deployment", "consumer", "spec.template.spec.containers.0.livenesProbe", {}),
        ("Deployment", "consumer", "spec.template.spec.terminationGracePeriodSeconds", "45"),
        ("Deployment", "consumer", "spec.selector", None),
        ("StatefulSet", "producer", "spec.volumeClaimTemplates.0.spec.accessMode", ["ReadWriteOnce"]),
        ("PodDisruptionBudget", "consumer", "spec.maxUnavailble", 1),
        ("NetworkPolicy", "services", "spec.egress.0.port", []),
        ("ScaledObject", "consumer", "spec.maxReplicas", 6),
        ("ScaledObject", "consumer", "spec.advanced.horizontalPodAutoscalerConfig.behaviour", {}),
        ("ScaledObject", "consumer", "spec.triggers.0.metadata.lagThreshold", 10000),
        ("TriggerAuthentication", "consumer", "spec.secretTargetRef.0.parameter", None),
        ("Kafka", "kafka", "spec.kafka.rack.topologykey", "zone"),
        ("Kafka", "kafka", "spec.kafka.listeners.0.authentication.type", "scram-sha-256"),
        ("KafkaNodePool", "broker", "spec.roles.0", "brokers"),
        ("KafkaTopic", "data-topic", "spec.partition", 6),
        ("KafkaUser", "consumer", "spec.authorization.acls.0.operations.0", "Reed"),
        ("PodMonitor", "services", "spec.podMetricsEndpoint", []),
        ("PrometheusRule", "services", "spec.groups.0.rules.0.expression", "1"),
    ],
)
def test_a_wrong_field_is_found(kind: str, name: str, path: str, value: object) -> None:
    manifest = named(overlay("production"), kind, name)

    change(path, value)(manifest)

    assert list(schema_errors(manifest)) != []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.securityContext.runAsNonRoot", None),
        ("spec.securityContext.runAsUser", 0),
        ("spec.securityContext.seccompProfile", None),
        ("spec.automountServiceAccountToken", True),
        ("spec.enableServiceLinks", None),
        ("spec.volumes.0", {"name": "host", "hostPath": {"path": "/"}}),
        ("spec.containers.0.securityContext.allowPrivilegeEscalation", True),
        ("spec.containers.0.securityContext.capabilities", {"drop": ["NET_RAW"]}),
        ("spec.containers.0.resources.limits", None),
        ("spec.containers.0.image", "kafka-pubsub-consumer:latest"),
    ],
)
def test_an_unsafe_pod_is_found(path: str, value: object) -> None:
    template = deepcopy(named(overlay("demo"), "Deployment", "consumer")["spec"]["template"])

    change(path, value)(template)

    assert len(list(unsafe_settings(template))) == 1


@pytest.mark.parametrize(
    ("kind", "name", "path"),
    [
        ("PodDisruptionBudget", "consumer", "spec.selector.matchLabels"),
        ("Service", "kafka", "spec.selector"),
        ("NetworkPolicy", "kafka", "spec.podSelector.matchLabels"),
    ],
)
def test_a_selector_with_a_wrong_label_is_found(kind: str, name: str, path: str) -> None:
    manifests = overlay("demo")

    change(path, {"app.kubernetes.io/name": "other"})(named(manifests, kind, name))

    assert len(list(dangling_selectors(manifests))) == 1


def test_a_value_that_no_pod_has_is_found_in_a_list_of_a_network_policy() -> None:
    manifests = overlay("demo")

    named(manifests, "NetworkPolicy", "services")["spec"]["podSelector"]["matchExpressions"][0]["values"].append(
        "consumers"
    )

    assert len(list(dangling_selectors(manifests))) == 1


@pytest.mark.parametrize("kind", ["Secret", "ConfigMap", "ServiceAccount"])
def test_a_missing_object_is_found(kind: str) -> None:
    manifests = overlay("demo")

    assert dangling_references([each for each in manifests if each["kind"] != kind]) == {
        title(each) for each in of_kind(manifests, kind)
    }


@pytest.mark.parametrize("key", ["lagTreshold", "lagThresholdFromEnv", "consumerGroupID", "username"])
def test_a_misspelled_key_of_the_trigger_passes_the_schema_and_is_found(key: str) -> None:
    scaled_object = named(overlay("production"), "ScaledObject", "consumer")

    scaled_object["spec"]["triggers"][0]["metadata"][key] = "1"

    assert list(schema_errors(scaled_object)) == []
    assert unknown_trigger_keys(scaled_object) == {key}


def test_a_misspelled_parameter_of_the_login_is_found() -> None:
    authentication = named(overlay("production"), "TriggerAuthentication", "consumer")

    authentication["spec"]["env"][0]["parameter"] = "user"

    assert unknown_login_parameters(authentication) == {"user"}


# --- the services


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_a_read_only_root_and_writes_to_volumes_only(service: str) -> None:
    writable = {
        mount["mountPath"] for mount in container(overlay("demo"), service)["volumeMounts"] if "readOnly" not in mount
    }

    assert container(overlay("demo"), service)["securityContext"]["readOnlyRootFilesystem"]
    assert writable == {"/tmp", {"producer": "/app/undelivered", "consumer": "/var/tmp"}[service]}


@pytest.mark.parametrize("service", SERVICES)
def test_the_image_and_the_user_are_those_of_the_dockerfile(service: str) -> None:
    version = re.search(r'^VERSION = "(.+)"', (ROOT / service / "src" / "settings.py").read_text("utf-8"), re.MULTILINE)
    dockerfile = (ROOT / service / "Dockerfile").read_text("utf-8")
    manifests = build(KUBERNETES / "base")
    (port,) = container(manifests, service)["ports"]

    assert version
    assert container(manifests, service)["image"] == f"kafka-pubsub-{service}:{version[1]}"
    assert f"EXPOSE {port['containerPort']}\n" in dockerfile
    for _, template in pod_templates(manifests):
        user = template["spec"]["securityContext"]
        assert f"USER {user['runAsUser']}:{user['runAsGroup']}\n" in dockerfile


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_variable_of_a_service_is_a_setting(name: str) -> None:
    manifests = overlay(name)
    variables = {each["name"] for service in SERVICES for each in container(manifests, service).get("env", [])}
    variables |= {key for each in of_kind(manifests, "ConfigMap") if "settings" in title(each) for key in each["data"]}

    assert {each.removesuffix("_FILE") for each in variables} - set(re.findall(r"`([A-Z_]+)`", CONFIGURATION)) == set()


def test_python_is_not_process_1_which_ignores_signals_that_it_does_not_handle_yet() -> None:
    for _, template in pod_templates(build(KUBERNETES / "base")):
        assert template["spec"]["shareProcessNamespace"]


def test_a_consumer_has_more_time_to_stop_than_it_needs() -> None:
    spec = named(overlay("demo"), "Deployment", "consumer")["spec"]["template"]["spec"]
    waits = (ROOT / "docs" / "decisions" / "0013-bounded-waits.md").read_text("utf-8")

    assert "Allow the consumer about 20 s to stop" in waits
    assert spec["terminationGracePeriodSeconds"] > 20 + 10  # and mongodb.timeout_ms


# --- what is also said elsewhere in the project


def test_the_topic_has_the_default_names_and_values_of_the_compose_stack() -> None:
    settings = next(each["data"] for each in of_kind(overlay("demo"), "ConfigMap") if "settings" in title(each))
    topics = next(each["data"] for each in of_kind(overlay("demo"), "ConfigMap") if "topics" in title(each))

    assert {**settings, **topics}.items() - SETTINGS.items() == {
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka.kafka-pubsub.svc:9092")
    }


def test_the_servers_of_the_demo_are_those_of_the_compose_stack() -> None:
    images = {name: template["spec"]["containers"][0]["image"] for name, template in pod_templates(overlay("demo"))}

    assert images["StatefulSet kafka"] == image("KAFKA_IMAGE")
    assert images["StatefulSet mongodb"] == image("MONGO_IMAGE")


def test_the_topics_of_strimzi_have_the_settings_of_the_compose_stack() -> None:
    manifests = overlay("production")

    for topic in script("topics").desired_topics(SETTINGS):
        spec = named(manifests, "KafkaTopic", topic.name)["spec"]
        assert spec["partitions"] == topic.partitions
        assert {key: str(spec["config"][key]) for key in topic.config} == topic.config


def test_the_users_of_strimzi_have_the_operations_in_the_documentation() -> None:
    names = {
        "kafka.topic": "data-topic",
        "kafka.dead_letter_topic": "data-topic.dlq",
        "kafka.group_id": "data-consumer-group",
    }
    table = CONFIGURATION.partition("## ACLs")[2].partition("\n## ")[0]
    documented: dict[str, set[tuple[str, str]]] = {"producer": set(), "consumer": set()}
    for who, resource, operation in re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", table, re.MULTILINE)[1:]:
        for name in re.findall(r"`(kafka\.\w+)`", resource) or (names if "both topics" in resource else ()):
            if name in names and (name != "kafka.group_id" or "group" in resource):
                service = "producer" if who == "producer" else "consumer"
                documented[service] |= {(names[name], each) for each in re.findall(r"`(\w+)`", operation)}

    for service, expected in documented.items():
        acls = named(overlay("production"), "KafkaUser", service)["spec"]["authorization"]["acls"]
        assert {(acl["resource"]["name"], each) for acl in acls for each in acl["operations"]} == expected


@pytest.mark.parametrize("name", ["demo-autoscaling", "production"])
def test_there_are_at_most_as_many_consumers_as_partitions(name: str) -> None:
    spec = named(overlay(name), "ScaledObject", "consumer")["spec"]

    assert spec["maxReplicaCount"] == int(SETTINGS["KAFKA_PARTITIONS"])
    assert "replicas" not in named(overlay(name), "Deployment", "consumer")["spec"]


def test_consumers_are_added_at_the_lag_that_the_alert_reports() -> None:
    (trigger,) = named(overlay("production"), "ScaledObject", "consumer")["spec"]["triggers"]
    rules = (ROOT / "monitoring" / "prometheus" / "alerts.yml").read_text("utf-8")

    assert f"expr: group_topic:lag:sum > {trigger['metadata']['lagThreshold']}\n" in rules


def test_the_prometheus_rule_is_made_from_the_rules_of_the_compose_stack() -> None:
    current = prometheus_rule.TARGET.read_text("utf-8") == prometheus_rule.text()

    assert current, "regenerate it: .venv/bin/python scripts/prometheus_rule.py"


def test_the_prometheus_rule_uses_only_metrics_that_the_services_and_the_kafka_exporter_have() -> None:
    text = prometheus_rule.TARGET.read_text("utf-8")
    expressions = " ".join(rule["expr"] for group in yaml.safe_load(text)["spec"]["groups"] for rule in group["rules"])

    assert len(re.findall(r"- alert: ", text)) > 15
    assert set(re.findall(r'absent\(up\{job="(\w+)"', expressions)) == {"consumer"}
    assert re.findall(r"\b(?:node|container|mongodb|prometheus|alertmanager|kafka_server)_\w+", expressions) == []


@pytest.mark.parametrize("page", ["application", "consumer", "producer"])
def test_a_dashboard_is_the_file_of_the_compose_stack(page: str) -> None:
    config = named(overlay("production"), "ConfigMap", f"dashboard-{page}")
    file = ROOT / "monitoring" / "grafana" / "dashboards" / f"{page}.json"

    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config["data"][f"{page}.json"]) == json.loads(file.read_text("utf-8"))
