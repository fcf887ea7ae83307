"""Folders of samples, and pictures."""
