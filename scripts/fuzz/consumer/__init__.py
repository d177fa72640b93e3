"""What of the consumer is fed. Runs in the consumer's folder."""
