"""The databases that DataStorage can use, and the rules that hold for all of them."""
