"""Networks that score pictures for screening: nudity, faces, text. Packages ship their weights as ONNX files."""
