"""Errors, files, arrays, processes and progress: what every room uses."""
