"""One file a task: `Options` and `build`."""
