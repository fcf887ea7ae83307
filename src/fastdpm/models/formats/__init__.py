"""Formats of published checkpoints, one module per format."""
