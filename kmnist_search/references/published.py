"""The published results that ours are compared with.

They come from reports on hand-tuned nets for the same exercise, S0 to S4; each accuracy is the one its report claims.
"""

from typing import Any

from kmnist_search.evaluation.metrics import Reference

CHOSEN_ON_TEST = "the test images"


def _reference(name: str, system: str, accuracy: float, epochs: int, **others: Any) -> Reference:
    known = {"dataset": "kmnist", "measured_on": "test", "chosen_on": CHOSEN_ON_TEST, **others}
    study = f"references/{name.lower()}"
    return Reference(name=name, system=system, study=study, accuracy=accuracy, epochs=epochs, **known)


def _experiment(number: int, blocks: str, patch: int, loss: float, train: float, test: float) -> Reference:
    return _reference(
        f"S2-{number}",
        f"{blocks}, patches of {patch}, images of 32 x 32, Adam",
        test,
        10,
        train_loss=loss,
        train_accuracy=train,
    )


REFERENCES = (
    _reference(
        "S0",
        "patch-MLP without norm or skip, patches of 7, Adam",
        0.8801,
        50,
        train_loss=0.0420,
        train_accuracy=0.9875,
    ),
    _reference("S1", "two blocks with dropout, patches of 4, Adam; the best of its runs", 0.9313, 20),
    _reference("S1-64", "the same, batch size 64, learning rate 0.01; the best of its epochs", 0.8932, 20),
    _reference("S1-128", "the same, batch size 128, learning rate 0.01; the best of its epochs", 0.9123, 30),
    _reference("S1-256", "the same, batch size 256, learning rate 0.001; the best of its epochs", 0.9278, 30),
    _reference(
        "S2",
        "six blocks beside skips, patches of 4, images of 32 x 32, SGD; the mean of 3 runs",
        0.94233,
        50,
        train_loss=0.00024,
        train_accuracy=0.99999,
    ),
    _experiment(1, "one block", 2, 0.21563, 0.9393, 0.8264),
    _experiment(2, "one block", 4, 0.20785, 0.9404, 0.8505),
    _experiment(3, "one block", 8, 0.21177, 0.9388, 0.8486),
    _experiment(4, "three blocks", 4, 0.06434, 0.9825, 0.9258),
    _experiment(5, "three blocks", 8, 0.06118, 0.9830, 0.9074),
    _reference(
        "S3", "two blocks with dropout, patches of 4, Adam; the best of its runs", 0.9005, 30, dataset="fashion-mnist"
    ),
    _reference(
        "S4",
        "perceptron of three layers, Adam",
        0.9192,
        5,
        dataset="mnist",
        measured_on="augmented validation",
        train_loss=0.2693,
        train_accuracy=0.9181,
        remark="Its validation images were augmented as the training images were, ours are not: compare the training "
        "accuracies.",
    ),
)

#: The settings that each report is known by; the names of its other settings have a hyphen.
HEADLINES = tuple(reference for reference in REFERENCES if "-" not in reference.name)
