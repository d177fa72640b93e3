"""The Grafana dashboards, written as Python and kept as JSON: `python -m dashboards`, from scripts/."""
