"""Measurements of the pipeline: `python -m benchmarks`. Nothing imports them."""
