"""What people look at: a study and its retrained winner as one web page and as Markdown. Trains and changes nothing."""
