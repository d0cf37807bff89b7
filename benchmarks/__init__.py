"""Measurements: `python -m benchmarks NAME [--quick]` prints a table and appends a JSON record."""
