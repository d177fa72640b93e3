"""Verifies that every committed message is stored or dead-lettered, and none twice."""
