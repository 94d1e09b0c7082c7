"""The images: the data sets, their files, and the parts that a search may see."""
