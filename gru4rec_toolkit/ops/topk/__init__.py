"""The best items of each session."""
