"""Drawings of what a model sees: attention as heat maps and masks, patch features as colors, sheets of pictures."""
