"""What a sample is, and how it is read and written."""
