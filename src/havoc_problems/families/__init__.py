"""The shelf of problem families: one file a family, with `Options` and `build`."""
