"""Readers of file formats: a name in `havoc_data.reader.FORMATS` is a file here."""
