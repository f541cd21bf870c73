"""MNIST, and Moving MNIST made from it.

MNIST's split: test as published; the last 10,000 training images are validation. The files are checked unpacked,
because gzip's bytes differ between publishers.

Moving MNIST (Srivastava et al., ICML 2015): 20 frames of 64×64, two digits that move in straight lines and bounce
off the edges; the first 10 frames are seen, the other 10 predicted. A digit starts anywhere, in any direction, and
goes a tenth of its free way (64 - 28 = 36 pixels) per frame; where two overlap, the brighter pixel counts. Sequences
follow from part, seed and their number alone, so any of them can be made again; digits come only from the part's own
images. (The published test file of 10,000 sequences is another draw from the same process.)
"""

from pathlib import Path

import numpy as np

from .source import DataError, Package, Source, locate

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
MD5 = (
    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "d53e105ee54ea40749a09fcbcd1e9432",
    "9fb629c4189551a2d022fa330f9573f3",
    "ec29112dd5afa0611ce80d1b7f02629c",
)

SOURCE = Source(
    name="mnist",
    title="MNIST",
    home="http://yann.lecun.com/exdb/mnist/",
    licence="none stated",
    keep=r"(train|t10k)-(images-idx3|labels-idx1)-ubyte",
    digest="474311efcf1fd213e64768801dc6195673bffb8385179d6c55cd8748b9e2e8ca",
    ways=(
        tuple(Package(f"mnist/{name}.gz") for name in FILES),
        tuple(
            Package(
                f"mnist-official/{name}.gz", f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}.gz", f"md5:{md5}"
            )
            for name, md5 in zip(FILES, MD5)
        ),
    ),
    folders=("mnist",),
)


def load(folder: str | Path | None = None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images, uint8 (n, 28, 28), and labels, uint8 (n,), of train (50,000), valid and test (10,000 each)."""
    home = locate(SOURCE, folder)
    images, labels, test_images, test_labels = (read_idx(home / name) for name in FILES)
    cut = len(images) * 5 // 6
    return {
        "train": (images[:cut], labels[:cut]),
        "valid": (images[cut:], labels[cut:]),
        "test": (test_images, test_labels),
    }


def read_idx(file: Path) -> np.ndarray:
    """Two zero bytes, the type (8 is uint8), the number of axes, each length as big-endian int32, the values."""
    data = file.read_bytes()
    if data[:3] != b"\0\0\x08":
        raise DataError(f"{file}: not an idx file of bytes; it begins with {data[:4].hex()}")
    shape = np.frombuffer(data, ">i4", data[3], 4)
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3])
    if values.size != shape.prod():
        raise DataError(f"{file}: {values.size} values, its header says {' × '.join(map(str, shape))}")
    return values.reshape(shape)


class MovingMNIST:
    """`len` sequences of a part; `[i]` is uint8 (frames, 64, 64), the same whenever and wherever it is made."""

    PARTS = ("train", "valid", "test")
    SIDE, DIGIT, STEP = 64, 28, 0.1

    def __init__(self, images: np.ndarray, part: str, length: int, seed: int = 0, frames: int = 20, digits: int = 2):
        self.images, self.part, self.length, self.seed = images, self.PARTS.index(part), length, seed
        self.frames, self.digits = frames, digits

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> np.ndarray:
        if not 0 <= i < self.length:
            raise IndexError(i)
        draw = np.random.default_rng([self.seed, self.part, i])
        sequence = np.zeros((self.frames, self.SIDE, self.SIDE), np.uint8)
        for _ in range(self.digits):
            image = self.images[draw.integers(len(self.images))]
            start, angle = draw.random(2), draw.uniform(0, 2 * np.pi)
            way = start + self.STEP * np.arange(self.frames)[:, None] * [np.sin(angle), np.cos(angle)]
            places = (self.SIDE - self.DIGIT) * bounce(way)
            for frame, (top, left) in zip(sequence, places.astype(int)):
                window = frame[top : top + self.DIGIT, left : left + self.DIGIT]
                np.maximum(window, image, out=window)
        return sequence


def bounce(way: np.ndarray) -> np.ndarray:
    """A straight way, folded at 0 and 1."""
    return 1 - np.abs(1 - way % 2)
