"""Testbench: Verilator locator and build cache, cocotb drivers and monitors, checkers, image decoder.

It reads the delivered bundle, the frozen network and the samples, and imports neither the mapper nor the
generator, so that a fault in those cannot hide itself.
"""
