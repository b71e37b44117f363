"""The shelf of other stacks' token formats."""
