"""The measures of `curate eval`: a file each, and the registry that names them."""
