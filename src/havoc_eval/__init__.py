"""Tasks and a model give scores with intervals."""
