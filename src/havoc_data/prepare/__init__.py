"""From documents to a token store."""
