"""Models that answer texts: exports, the predictor and what is in a graph."""
