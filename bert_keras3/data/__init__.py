"""Turns texts and records into batches of arrays."""
