"""The databases behind the storage door, and what holds for each of them."""
