"""Study files: their schema, their parser, their writer, and those that come with the package."""
