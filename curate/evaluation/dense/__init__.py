"""What features of patches are worth: tasks whose answer is a map, on composites with exact truth and on folders."""
