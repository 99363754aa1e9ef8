"""Runs as they lie on disk: which there are, how far they are, what they answered. Reads text alone."""
