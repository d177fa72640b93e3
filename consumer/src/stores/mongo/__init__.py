"""A store in MongoDB. No other package uses its driver."""
