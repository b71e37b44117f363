"""Settings, errors, tokenizer, layers, models, loss, costs and the checkpoint format."""
