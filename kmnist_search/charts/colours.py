"""The colours of charts.

A colour is the name of a custom property in the page's stylesheet, which defines it for light, dark and paper; the
page's script replaces it with its value.
"""

BLUE, ORANGE, GREEN, RED, PURPLE = (f"var(--{name})" for name in ("blue", "orange", "green", "red", "purple"))
GREY, INK, LINE, CARD = (f"var(--{name})" for name in ("grey", "ink", "line", "card"))
