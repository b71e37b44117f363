"""Documents to a token store, once; a token store to batches, at each step."""
