"""The layers of a decoder: flat keyword arguments, never a config."""
