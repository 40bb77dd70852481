"""Recipes in straight-line Python: read one from top to bottom, like the figure of its paper."""
