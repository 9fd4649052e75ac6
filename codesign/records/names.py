"""Names of files in a run directory that several commands read. Known without what reads them."""

MANIFEST = "manifest.json"
REPORT = "report.html"
CONFIG = "config.toml"
NETWORK = "network.safetensors"
STIMULUS = "stimulus.npz"
# Of a network from elsewhere: it before it had integers, and what became of it.
FLOAT_NETWORK = "float.safetensors"
IMPORT_REPORT = "import.json"
CALIBRATION = "calibration.npz"
DECISIONS = "decisions.npz"
