"""Models that are kept: as folders, in use, and in other programs' formats. Knows nothing of studies."""
