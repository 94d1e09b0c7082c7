"""Export, import, copy, rename and delete whole studies."""
