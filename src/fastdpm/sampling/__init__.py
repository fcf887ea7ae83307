"""Running plans with torch: denoisers, noise and the one loop."""
