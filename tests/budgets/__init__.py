"""What one operation may cost, counted and not timed."""
