"""Flags, and how a script starts and talks; used by scripts only."""
