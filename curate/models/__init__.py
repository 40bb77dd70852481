"""Backbones: the DINOv2 ViT, loaders for foreign weights, and the frozen embedder."""
