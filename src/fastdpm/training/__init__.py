"""Training the simple loss, so that the built-in models can be made again."""
