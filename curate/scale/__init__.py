"""What a run would take at another size, on other machines: `curate plan`."""
