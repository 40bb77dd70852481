"""Copies of one picture: evidence for pairs, components of them, and which image of a component stays."""
