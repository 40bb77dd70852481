"""Answers about images: which of them stay, which go and why, as rows to read and as data sets to hand on."""
