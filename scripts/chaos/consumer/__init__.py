"""The consumer, composed anew: it dies at a chosen point, or lacks a protection. Runs in the consumer's folder."""
