"""Sources of images: how they are configured, listed in a fixed order, and read in that order.

`config` says which sources a run has, and `formats` what a format must be able to do. `folder`, `tar` and `parquet` are
such formats; `listing` detects which one a source has. `reading` reads the images of a part of the catalog.
"""
