"""The study of sparse structure learning: presets against each other at equal steps and equal final density.

`python -m benchmarks.method` trains what is not finished, then writes tables and plots. Nothing imports it.
"""
