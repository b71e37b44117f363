"""From a token store to batches, as a pure function of store, plan, seed and slot."""
