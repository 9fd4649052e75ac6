"""From a trained network to a frozen one."""
