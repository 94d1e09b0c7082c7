"""The note of a study in Markdown: what is searched, the progress, the best trials, and useful commands.

Text that people write below its last line is kept.
"""

import shlex
from functools import cache

import jinja2

from kmnist_search import wording
from kmnist_search.charts import trials as read
from kmnist_search.dashboard.kept_text import with_kept_text
from kmnist_search.dashboard_content.snapshot import Snapshot
from kmnist_search.data.catalog import title_of
from kmnist_search.study_file.description import (
    condition_text,
    pruner_text,
    sampler_text,
    scale_text,
    setting_text,
    values_text,
)

#: The most failure reasons listed; `kmnist-search status` shows more.
MAX_REASONS = 5
#: The most characters of a reason; some contain a whole configuration.
MAX_REASON = 200


def note(snapshot: Snapshot, before: str = "") -> str:
    """Return the note of a study.

    Args:
        snapshot: what the note describes.
        before: the present note; text that people wrote into it is kept.
    """
    history = read.history(snapshot.trials, snapshot.direction)
    ours = _template().render(
        snapshot=snapshot,
        counts=snapshot.counts,
        file=snapshot.file,
        study=snapshot.file.study,
        seconds=float(history.seconds[-1]) if len(history.seconds) else None,
        seconds_saved=read.saved(snapshot.trials, snapshot.file.train.epochs).seconds,
        clock="GPU time" if read.clock_name(snapshot.trials) == "GPU-seconds" else "training",
        pruner=pruner_text(snapshot.file.study.pruner, snapshot.file.train.epochs),
        sampler=sampler_text(snapshot.file.study),
        failures=list(read.failures(snapshot.trials).items()),
        most_reasons=MAX_REASONS,
    )
    return with_kept_text(ours, before)


@cache
def _template() -> jinja2.Template:
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for each in (wording.percent, wording.value, wording.duration_text, wording.moment, title_of):
        templates.filters[each.__name__] = each
    templates.filters.update(
        quote=shlex.quote,
        fixed=setting_text,
        values=values_text,
        scale=scale_text,
        condition=condition_text,
        reason=_reason,
        metric_text=lambda number, metric: wording.metric_text(metric, number),
    )
    templates.globals["count"] = wording.count
    return templates.get_template("note.md.jinja")


def _reason(text: str) -> str:
    """Return a reason on one line, for a cell of a Markdown table."""
    line = " ".join(text.split())
    shown = line if len(line) <= MAX_REASON else f"{line[: MAX_REASON - 4]} ..."
    return f"`{shown.replace('`', chr(39)).replace('|', '/')}`"
