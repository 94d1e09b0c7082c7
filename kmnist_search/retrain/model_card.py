"""The README.md of a saved model, a Hugging Face model card."""

import json

from kmnist_search.data.catalog import SOURCES
from kmnist_search.evaluation.metrics import Metrics
from kmnist_search.report.templating import environment
from kmnist_search.saved_model.info import ModelInfo


def model_card(metrics: Metrics, info: ModelInfo) -> str:
    """Return the card of the kept model, which `info` describes, as Markdown with a YAML header."""
    return (
        environment("md")
        .get_template("model_card.md.jinja")
        .render(
            metrics=metrics,
            info=info,
            test=metrics.test,
            kept=metrics.test.kept,
            source=SOURCES[info.dataset],
            names=" ".join(name.text for name in info.classes),
            texts=json.dumps([name.text for name in info.classes], ensure_ascii=False),
            num_parameters=metrics.candidates[0].num_parameters,
        )
    )
