"""The path from a configuration to a report, as stages in a run directory.

Only this package and the command line know all parts; each part knows nothing of the pipeline.
"""
