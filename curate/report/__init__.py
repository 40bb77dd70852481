"""What people look at: the report page, the dataset card, the story of one image, the state of a workdir."""
