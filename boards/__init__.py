"""FPGA families and boards: budgets, platforms, synthesis, bitstreams, and the host link."""
