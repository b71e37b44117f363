"""Where weights, gradients and optimizer state are kept, in what format, and how they get where they are needed."""
