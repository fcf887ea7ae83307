"""Schedules, levels and plans in NumPy float64; nothing here needs torch."""
