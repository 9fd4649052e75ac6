"""Amaranth components of the accelerator and the emission of the Verilog bundle. No torch, no simulation."""
