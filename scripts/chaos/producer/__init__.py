"""The producer, composed anew without a protection. Runs in the producer's folder."""
