"""What hardware and software agree on: the frozen network, its file, its integer arithmetic, and the sidecar."""
