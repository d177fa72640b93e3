"""Messages that could not be stored: parked with the reason, listed, shown, and sent back."""
