"""The consumer with a crash point or without a protection. Runs in the consumer's folder."""
