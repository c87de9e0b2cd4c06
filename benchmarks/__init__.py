"""Measurements, each a command: ``python -m benchmarks.training`` and so on."""
