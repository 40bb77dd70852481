"""k-means, flat and as a tree, and the inverted lists that it gives; the seam to faiss."""
