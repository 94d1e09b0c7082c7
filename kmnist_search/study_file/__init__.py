"""Study files: schema, parser, writer, and the built-in files."""
