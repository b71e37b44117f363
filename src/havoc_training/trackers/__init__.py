"""Where numbers of a run are shown: a name in `tracking.trackers` is a file here."""
