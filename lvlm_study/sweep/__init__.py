"""Many models, items and methods at once: the runner, its engines, tables and results."""
