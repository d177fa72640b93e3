"""The producer without a protection. Runs in the producer's folder."""
