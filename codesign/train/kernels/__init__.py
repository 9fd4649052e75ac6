"""Arithmetic of the neurons over timesteps, behind :mod:`codesign.train.lif`. Knows tensors only, no networks."""
