"""Data: what one sample is, and reading and writing images, sounds and conditions."""
