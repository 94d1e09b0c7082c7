"""The result folder of a retraining: report, figures, models. It is written completely or not at all.

report.html  report.md  metrics.json  recipe.json  study.toml
model/                  the kept model: config.json, weights.safetensors, model.onnx, README.md
other-seeds/<seed>/     the models of the other final seeds: config.json, weights.safetensors
"""

from pathlib import Path

from kmnist_search.errors import ResultFolderError
from kmnist_search.evaluation.metrics import Metrics
from kmnist_search.host import files
from kmnist_search.report.page import markdown_report, study_report
from kmnist_search.retrain.conclusion import RetrainingResult
from kmnist_search.retrain.model_card import model_card
from kmnist_search.retrain.preparation import Preparation
from kmnist_search.retrain.publication import STUDY_FILE, evidence_of
from kmnist_search.saved_model import onnx_file
from kmnist_search.saved_model.folder import write as write_model
from kmnist_search.study_file.writer import as_toml

METRICS_FILE = "metrics.json"


def result_before(folder: Path, preparation: Preparation) -> Metrics | None:
    """Return the figures in `folder` if they are the result of the same retraining."""
    metrics, plan = Metrics.read(folder / METRICS_FILE), preparation.plan
    same = (
        metrics is not None
        and metrics.study.name == preparation.study.name
        and {candidate.config_digest for candidate in metrics.candidates}
        == {planned.rerun.digest for planned in plan.candidates}
        and [rerun.seed for rerun in metrics.candidates[0].reruns] == [repeat.seed for repeat in plan.repeats]
        and metrics.recipe.seeds == tuple(plan.final_seeds)
        and metrics.recipe.config_digest in {planned.final.digest for planned in plan.candidates}
    )
    return metrics if same else None


def check_place(folder: Path, *, force: bool) -> None:
    """Raise ResultFolderError if `folder` cannot be made, or exists and must not be replaced."""
    files.check_result_folder(folder, is_ours=Metrics.read(folder / METRICS_FILE) is not None, force=force)


def write(folder: Path, preparation: Preparation, result: RetrainingResult) -> Metrics:
    """Write the result to `folder`, replacing an old one.

    Raises:
        ResultFolderError: it cannot be written; an old result stays unchanged.
        ExportFailedError: the ONNX file predicts something else than the model.
    """
    with files.whole_folder(folder, replace=True, error=ResultFolderError) as new:
        return _write_all(new, preparation, result)


def _write_all(folder: Path, preparation: Preparation, result: RetrainingResult) -> Metrics:
    kept_folder = folder / "model"
    for packed in result.packed:
        seed = packed.info.seed
        write_model(kept_folder if seed == result.recipe.seeds[0] else folder / "other-seeds" / str(seed), packed)
    kept = result.packed[0].unpacked()
    onnx_file.write(kept, kept_folder / "model.onnx")
    onnx_file.check(kept_folder / "model.onnx", kept, result.test_set.images)
    evidence = evidence_of(preparation, result, kept)
    metrics = evidence.metrics
    (kept_folder / "README.md").write_text(model_card(metrics, kept.info), encoding="utf-8")
    metrics.recipe.write(folder / "recipe.json")
    (folder / STUDY_FILE).write_text(as_toml(preparation.study.settings), encoding="utf-8")
    (folder / "report.html").write_text(study_report(preparation.study, evidence), encoding="utf-8")
    (folder / "report.md").write_text(markdown_report(metrics), encoding="utf-8")
    metrics.write(folder / METRICS_FILE)
    return metrics
