"""A checkpoint in the formats of other software, each export compared with the model it came from."""
