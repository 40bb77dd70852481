"""Measures of frozen features."""
