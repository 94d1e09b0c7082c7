"""The findings of `doctor` in a terminal: a line each as soon as it is known, and a conclusion."""

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from kmnist_search.doctor.finding import Finding
from kmnist_search.wording import count

#: The sign and the colour of each state; signs that every encoding has.
SIGNS = {"ok": ("ok", "green"), "absent": ("-", "dim"), "bad": ("BAD", "bold red")}
WIDTHS = (5, 15)


def show(console: Console, findings: Iterator[Finding]) -> list[Finding]:
    """Print the findings as they come, then how many are bad; return them."""
    shown = []
    with console.status("Checking ..."):
        for finding in findings:
            sign, style = SIGNS[finding.state]
            line = Text(sign.ljust(WIDTHS[0]), style=style)
            line.append(f"{finding.name.ljust(WIDTHS[1])}{finding.text}", style="default")
            console.print(line, soft_wrap=True)
            if finding.advice:
                console.print(Text(" " * sum(WIDTHS) + finding.advice, style="cyan"), soft_wrap=True)
            shown.append(finding)
    bad = sum(finding.state == "bad" for finding in shown)
    conclusion = (
        f"{count(bad, 'thing does', 'things do')} not work well: see BAD above" if bad else "All of this works."
    )
    console.print(Text(conclusion, style="bold"), soft_wrap=True)
    return shown
