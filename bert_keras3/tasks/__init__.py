"""Each task's data, results and decoding; metrics and reports."""
