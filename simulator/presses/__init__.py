"""A hundred thousand presses over a bad radio, and a ledger that says of each what became of it."""
