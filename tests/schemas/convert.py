"""Convert custom resource definitions into the schemas in this folder: `python convert.py crd.yaml ...`.

The schemas are strict: a field that a definition does not list is an error, where an API server would drop it silently.
Descriptions are left out, and the templates of Strimzi's pods, which are most of its schema and not used here.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
KEPT = ("type", "items", "enum", "anyOf", "oneOf", "required", "pattern", "minimum", "maximum", "minItems", "maxItems")
FREE = "x-kubernetes-preserve-unknown-fields"
ANY_OBJECT: dict[str, Any] = {"apiVersion": {}, "kind": {}, "metadata": {}}

Schema = dict[str, Any]


def strict(schema: Schema) -> Schema:
    result: Schema = {key: _converted(schema[key]) for key in KEPT if key in schema}
    if properties := schema.get("properties"):
        result["properties"] = {name: strict(each) for name, each in properties.items() if name != "template"}
        result["additionalProperties"] = bool(schema.get(FREE))
    elif isinstance(values := schema.get("additionalProperties"), dict):
        result["additionalProperties"] = strict(values)
    return result


def _converted(value: Any) -> Any:
    if isinstance(value, dict):
        return strict(value)
    if isinstance(value, list):
        return [_converted(each) for each in value]
    return value


def main(files: list[str]) -> None:
    for file in files:
        definition = yaml.safe_load(Path(file).read_text("utf-8"))
        kind = definition["spec"]["names"]["kind"]
        (version,) = (each for each in definition["spec"]["versions"] if each["storage"])
        schema = strict(version["schema"]["openAPIV3Schema"])
        schema["properties"] |= ANY_OBJECT
        schema["properties"]["apiVersion"] = {"const": f"{definition['spec']['group']}/{version['name']}"}
        (FOLDER / f"{kind}.json").write_text(json.dumps(schema, separators=(",", ":")) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
