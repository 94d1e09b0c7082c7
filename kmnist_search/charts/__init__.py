"""What a study is drawn from and how it looks as charts, for all who show one. Reads no page and writes none."""
