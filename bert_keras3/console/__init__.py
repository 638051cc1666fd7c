"""Flags, the start of a script, conversations; for scripts only."""
