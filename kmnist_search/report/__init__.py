"""The report of a study and its final models, as a web page and as Markdown. It trains and changes nothing."""
