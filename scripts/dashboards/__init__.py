"""Generates the Grafana dashboards: `python -m dashboards`, run from scripts/."""
