"""From texts and records to batches of arrays."""
