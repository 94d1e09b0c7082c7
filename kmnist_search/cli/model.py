"""The commands for a saved model: `predict` and `export`.

Imports that take time wait inside the commands, so that `--help` answers at once.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kmnist_search.cli.options import data_dir_option, force_option, json_option, print_json
from kmnist_search.wording import count

if TYPE_CHECKING:
    from kmnist_search.saved_model.export import Format
    from kmnist_search.saved_model.model import SavedModel
    from kmnist_search.saved_model.predictions import Row

#: Width of a table that goes to a file or another program, so that no line is folded.
WIDE = 10_000


@click.command(epilog="Example: kmnist-search predict result/model scans/ --csv")
@click.argument("model_dir", metavar="MODEL", type=click.Path(path_type=Path))
@click.argument("images", metavar="[IMAGE]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--dataset", type=click.Choice(["test"]), help="Predict the test set of the model's data set instead.")
@data_dir_option
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
def predict(
    model_dir: Path, images: tuple[Path, ...], dataset: str | None, data_dir: Path | None, as_json: bool, as_csv: bool
) -> None:
    """Predict the character on each image.

    MODEL is the folder of a saved model. IMAGE is a PNG or JPEG file with one character, dark on light or light
    on dark, or a folder of such files. Images of a folder that cannot be read or are empty are left out and named at
    the end, with exit code 2.

    --dataset test needs no images. The output does not say which predictions are right: to compare them with the truth
    is a look at the test set that no ledger counts.
    """
    if bool(images) == (dataset is not None):
        which = "not both" if images else "one of them"
        raise click.UsageError(f"name images or folders of images, or --dataset test: {which}.")
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other.")

    from rich.console import Console

    from kmnist_search.errors import ImageError
    from kmnist_search.saved_model import predictions
    from kmnist_search.saved_model.folder import load_model

    saved = load_model(model_dir)
    found, problems = (_of_test_set(saved, data_dir), []) if dataset else _of_files(saved, images)
    if as_json:
        print_json(found)
    elif as_csv:
        click.echo(predictions.as_csv(found), nl=False)
    else:
        Console(width=None if sys.stdout.isatty() else WIDE).print(predictions.as_table(found))
    if problems:
        raise ImageError("\n".join([f"{count(len(problems), 'image')} left out:", *problems]))


@click.command(epilog="Example: kmnist-search export result/model --format onnx --out hiragana.onnx")
@click.argument("model_dir", metavar="MODEL", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "to",
    type=click.Choice(["onnx", "safetensors"]),
    required=True,
    help="onnx for onnxruntime and other programs; safetensors for the weights and the configuration alone.",
)
@click.option(
    "--out", metavar="FILE", type=click.Path(path_type=Path), help="File to write.  [default: model.onnx, .safetensors]"
)
@force_option
def export(model_dir: Path, to: "Format", out: Path | None, force: bool) -> None:
    """Export a saved model to another format.

    The file is checked: it must predict what the model predicts.

    MODEL is the folder of a saved model.
    """
    from kmnist_search.saved_model.export import SUFFIXES, export
    from kmnist_search.saved_model.folder import load_model

    saved = load_model(model_dir)
    file = out or Path(f"model{SUFFIXES[to]}")
    export(saved, to, file, force=force)
    click.echo(f"{model_dir} is in {file} ({file.stat().st_size:,} bytes), and predicts the same there")


def _of_files(saved: "SavedModel", images: tuple[Path, ...]) -> "tuple[list[Row], list[str]]":
    """Return the predictions for the images that can be used, and what is wrong with others in the folders.

    Raises:
        ImageError: none can be used, or not one that is named itself.
    """
    import numpy as np

    from kmnist_search.errors import ImageError
    from kmnist_search.saved_model.predictions import image_files, rows
    from kmnist_search.saved_model.preprocessing import preprocess

    prepared, problems = [], {}
    for file in image_files(images):
        try:
            prepared.append((str(file), preprocess(file)))
        except ImageError as error:
            problems[file] = str(error)
    if not prepared or not problems.keys().isdisjoint(images):
        raise ImageError("\n".join(problems.values()))
    names, pixels = zip(*prepared, strict=True)
    return rows(names, saved.predict(np.stack(pixels))), list(problems.values())


def _of_test_set(saved: "SavedModel", data_dir: Path | None) -> "list[Row]":
    from kmnist_search.data.files import default_data_dir
    from kmnist_search.data.test_set import open_test_set
    from kmnist_search.saved_model.predictions import rows

    images = open_test_set(saved.info.dataset, data_dir or default_data_dir()).images
    name = "test" if saved.info.dataset == "digits" else "t10k"  # the name in the files of the MNIST family
    return rows([f"{name}[{position}]" for position in range(len(images))], saved.predict(images))
