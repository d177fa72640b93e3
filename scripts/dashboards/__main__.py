"""Generate the Grafana dashboards, or with --check compare them with the generated files."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from dashboards import application, consumer, kafka, overview, persistence, producer
from dashboards.grafana import Dashboard
from dashboards.thresholds import read_thresholds

FOLDER = Path(__file__).parents[2] / "monitoring" / "grafana" / "dashboards"


def dashboards() -> Iterator[Dashboard]:
    thresholds = read_thresholds()
    for page in (overview, kafka, producer, consumer, application, persistence):
        yield page.dashboard(thresholds)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dashboards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if any file is out of date")
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="output folder (default: monitoring/grafana/dashboards)"
    )
    options = parser.parse_args(arguments)
    files = {options.folder / f"{page.uid}.json": page.text() for page in dashboards()}
    return _compare(files) if options.check else _write(files)


def _write(files: dict[Path, str]) -> int:
    for path, text in files.items():
        path.write_text(text, "utf-8")
    return 0


def _compare(files: dict[Path, str]) -> int:
    differing = [path.name for path, text in files.items() if not path.exists() or path.read_text("utf-8") != text]
    for name in differing:
        print(f"{name} is out of date; regenerate it: cd scripts && python -m dashboards")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
