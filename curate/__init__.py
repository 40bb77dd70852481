"""From a messy pool of images to a curated Parquet data set, to a pretrained backbone."""

__version__ = "0.1.0"
