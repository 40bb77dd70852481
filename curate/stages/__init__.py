"""Ops made table steps: one file a stage."""
