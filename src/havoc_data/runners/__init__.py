"""The shelf of runners: what works on the parts of the text."""
