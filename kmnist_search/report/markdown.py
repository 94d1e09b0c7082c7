"""The figures of a final model as Markdown."""

from kmnist_search.report.evidence import Evidence
from kmnist_search.report.templating import environment


def markdown_report(evidence: Evidence) -> str:
    """Return the headline and the tables of the report."""
    return environment("md").get_template("report.md").render(metrics=evidence.metrics)
