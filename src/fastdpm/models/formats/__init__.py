"""Published checkpoints, one file a format."""
