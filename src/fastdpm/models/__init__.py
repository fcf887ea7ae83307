"""Models: finding, loading, converting and publishing them, and model folders."""
