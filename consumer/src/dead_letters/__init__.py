"""Messages that cannot be stored: written to the dead-letter topic with the reason; what becomes of them there."""
