"""Measuring samples: features, statistics and metrics, each a stage of its own."""
