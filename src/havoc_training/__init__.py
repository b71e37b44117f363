"""Config and batches give checkpoints."""
