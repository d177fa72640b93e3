"""What of the producer is fed. Runs in the producer's folder."""
