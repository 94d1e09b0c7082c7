"""The README.md of a saved model, a Hugging Face model card.

Its text is in `templates/model_card.md.jinja`.
"""

import json

from jinja2 import Environment, PackageLoader, StrictUndefined

from kmnist_search.data.catalog import SOURCES
from kmnist_search.evaluation.metrics import Metrics
from kmnist_search.saved_model.info import ModelInfo
from kmnist_search.wording import percent


def model_card(metrics: Metrics, info: ModelInfo) -> str:
    """Return the card of the kept model as Markdown with a YAML header.

    Args:
        metrics: the figures of the retraining.
        info: the model's `config.json`.
    """
    environment = Environment(
        loader=PackageLoader("kmnist_search.retrain"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    final = metrics.test
    return environment.get_template("model_card.md.jinja").render(
        metrics=metrics,
        info=info,
        test=final,
        kept=final.kept,
        source=SOURCES[info.dataset],
        names=" ".join(name.text for name in info.classes),
        texts=json.dumps([name.text for name in info.classes], ensure_ascii=False),
        num_parameters=metrics.candidates[0].num_parameters,
    )
