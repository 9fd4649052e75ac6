"""Names of files in a run directory that several commands read. Known without what reads them."""

MANIFEST = "manifest.json"
CONFIG = "config.toml"
NETWORK = "network.safetensors"
STIMULUS = "stimulus.npz"
CALIBRATION = "calibration.npz"
DECISIONS = "decisions.npz"
