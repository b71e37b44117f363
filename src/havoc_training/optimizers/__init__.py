"""Optimizers: a name in `optimizer` is a file here."""
