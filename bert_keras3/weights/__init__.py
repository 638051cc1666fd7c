"""Checkpoints and weights of other formats, and the files beside them."""
