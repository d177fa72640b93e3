"""Fuzz tests of the producer. Run in the producer's folder."""
