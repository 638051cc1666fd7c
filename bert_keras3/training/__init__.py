"""The training loop, its step, devices, logs and output directories."""
