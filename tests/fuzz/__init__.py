"""Fuzzers: every file that a command reads, damaged in every way, must end in a result or in one line.

``python -m tests.fuzz --help`` runs them alone; :mod:`tests.fuzz.mutations` damages, :mod:`tests.fuzz.targets` says
what is read by which command, :mod:`tests.fuzz.worker` runs cases under limits of time and memory.
"""
