"""Kinds of source: a name in `data.sources` is a file here."""
