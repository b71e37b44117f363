"""Models: each file gives a decoder."""
