"""The images: which there are, where they lie, how they are read, and what of them a search may see."""
