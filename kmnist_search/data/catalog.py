"""The catalog of data sets: files with checksums, class names, sources and licences."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class IdxFile:
    """One file of the MNIST family: its name without `.gz`, and the md5 of its unpacked bytes."""

    name: str
    md5: str


@dataclass(frozen=True, kw_only=True)
class IdxDataset:
    """A data set of the MNIST family, in the folder layout of torchvision: `<data dir>/<folder>/raw/<file>`.

    Attributes:
        title: the name that people read.
        folder: also the name of its class in `torchvision.datasets`.
    """

    title: str
    folder: str
    train_images: IdxFile
    train_labels: IdxFile
    test_images: IdxFile
    test_labels: IdxFile

    @property
    def files(self) -> tuple[IdxFile, IdxFile, IdxFile, IdxFile]:
        return self.train_images, self.train_labels, self.test_images, self.test_labels


def _family(title: str, folder: str, *md5s: str) -> IdxDataset:
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    files = [IdxFile(name=name, md5=md5) for name, md5 in zip(names, md5s, strict=True)]
    return IdxDataset(
        title=title,
        folder=folder,
        train_images=files[0],
        train_labels=files[1],
        test_images=files[2],
        test_labels=files[3],
    )


#: Checksums of the unpacked contents. Those in torchvision are of the `.gz` files and change with the compression.
IDX_DATASETS: dict[str, IdxDataset] = {
    "kmnist": _family(
        "KMNIST",
        "KMNIST",
        "92be26ec9822e900ac425d0a0aa84ced",
        "949e75301f8813e0dc5800dcc320fc52",
        "bf305b8cd328700fbc17f5acbc2856d2",
        "9f55f451c0988b028eccdf7d5cc265ab",
    ),
    "mnist": _family(
        "MNIST",
        "MNIST",
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
    "fashion-mnist": _family(
        "Fashion-MNIST",
        "FashionMNIST",
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
    ),
}


#: The images of each data set that a search may see.
TRAINING_IMAGES = {**dict.fromkeys(IDX_DATASETS, 60_000), "digits": 1_437}


def title_of(dataset: str) -> str:
    """Return the name of a data set that people read."""
    return IDX_DATASETS[dataset].title if dataset in IDX_DATASETS else f"scikit-learn's {dataset}"


@dataclass(frozen=True, kw_only=True)
class ClassName:
    """The name of a class: a character or a thing, and the reading of a Japanese character in Latin letters."""

    text: str
    reading: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.reading}".rstrip()


def _plain(*texts: str) -> tuple[ClassName, ...]:
    return tuple(ClassName(text=text) for text in texts)


#: The classes of each data set by label, 0 to 9.
CLASS_NAMES: dict[str, tuple[ClassName, ...]] = {
    "kmnist": tuple(
        ClassName(text=text, reading=reading)
        for text, reading in zip(
            "おきすつなはまやれを", ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"), strict=True
        )
    ),
    "mnist": _plain(*"0123456789"),
    "digits": _plain(*"0123456789"),
    "fashion-mnist": _plain(
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """The authors and the licence of a data set."""

    attribution: str
    licence: str


SOURCES: dict[str, Source] = {
    "kmnist": Source(
        attribution='"KMNIST Dataset" (created by CODH), adapted from "Kuzushiji Dataset" (created by NIJL and '
        "others), doi:10.20676/00000341",
        licence="CC BY-SA 4.0",
    ),
    "mnist": Source(
        attribution="MNIST (Yann LeCun, Corinna Cortes, Christopher J. C. Burges), derived from NIST Special Database "
        "3 and 1",
        licence="CC BY-SA 3.0",
    ),
    "fashion-mnist": Source(
        attribution="Fashion-MNIST (Han Xiao, Kashif Rasul, Roland Vollgraf; Zalando Research), arXiv:1708.07747",
        licence="MIT",
    ),
    "digits": Source(
        attribution="Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak; UCI Machine Learning "
        "Repository), doi:10.24432/C50P49, the part that comes with scikit-learn",
        licence="CC BY 4.0",
    ),
}
