"""Fuzz tests of the consumer. Run in the consumer's folder."""
