"""What a label may be besides the id of a token. Imports no torch: data are made without it."""

from __future__ import annotations

IGNORE_INDEX = -100
"""Label of a token that is not to be predicted."""
