"""What commands print: progress lines, tables and results as plain text."""
