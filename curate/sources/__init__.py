"""Sources of images: how they are configured, listed in a fixed order, and read in that order."""
