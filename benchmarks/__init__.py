"""What is claimed, as commands that print tables: `python -m benchmarks.NAME`."""
