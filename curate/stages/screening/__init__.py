"""Scores of images, and the rules that turn them into rejects."""
