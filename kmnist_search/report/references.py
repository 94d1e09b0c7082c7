"""The published results that ours are compared with. Knows nothing of ours.

They are reports of hand-tuned nets for the same exercise, named S0 to S4; each accuracy is the one its report claims.
"""

from kmnist_search.metrics import Reference

CHOSEN_ON_TEST = "the test images"

REFERENCES = (
    Reference(
        name="S0",
        system="patch-MLP without norm or skip, patches of 7, Adam, 50 epochs",
        dataset="kmnist",
        accuracy=0.8801,
        chosen_on=CHOSEN_ON_TEST,
    ),
    Reference(
        name="S1",
        system="two-block patch-MLP with dropout, patches of 4, Adam, 20 epochs; the best of its runs",
        dataset="kmnist",
        accuracy=0.9313,
        chosen_on=CHOSEN_ON_TEST,
    ),
    Reference(
        name="S2",
        system="six-block patch-MLP on images of 32 x 32, patches of 4, SGD, 50 epochs; the mean of 3 runs",
        dataset="kmnist",
        accuracy=0.94233,
        chosen_on=CHOSEN_ON_TEST,
    ),
    Reference(
        name="S3",
        system="two-block patch-MLP with dropout, patches of 4, Adam, 30 epochs; the best of its runs",
        dataset="fashion-mnist",
        accuracy=0.9005,
        chosen_on=CHOSEN_ON_TEST,
    ),
    Reference(
        name="S4",
        system="perceptron of three layers, Adam; a validation figure, after 5 epochs",
        dataset="mnist",
        accuracy=0.9192,
        chosen_on=CHOSEN_ON_TEST,
    ),
)
