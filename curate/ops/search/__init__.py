"""Nearest neighbors among many vectors, and how many of them a search through inverted lists finds."""
