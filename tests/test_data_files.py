"""Data sets read from files: real files in the real formats, good and bad."""

import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rac_helpers import data


def picture(seed, size=(32, 32)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def make_tree(root, *, classes=("cat", "dog"), count=6, size=(32, 32), suffix=".png"):
    for k, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(count):
            picture(1000 * k + i, size).save(root / name / f"{i:04}{suffix}")
    return root


def pixels(image):
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def image_keys(split):
    return {image.numpy().tobytes() for image in split.images}


@pytest.fixture(scope="module")
def flat_tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("flat"), count=10)


class TestFolder:
    def test_train_and_test_folders(self, tmp_path):
        make_tree(tmp_path / "train", count=10)
        make_tree(tmp_path / "test", count=3)
        read = data.folder(tmp_path, validation=4)
        counts = {name: split.labels.bincount().tolist() for name, split in read.splits().items()}
        assert counts == {"train": [8, 8], "validation": [2, 2], "test": [3, 3]}
        assert read.classes == ("cat", "dog")
        assert read.name == tmp_path.name
        assert not image_keys(read.train) & image_keys(read.validation)

    def test_pixels_and_labels_are_those_of_the_files(self, tmp_path):
        make_tree(tmp_path / "train")
        make_tree(tmp_path / "test")
        read = data.folder(tmp_path, validation=2)
        expected = torch.stack([pixels(picture(1000 * k + i)) for k in (0, 1) for i in range(6)])
        assert torch.equal(read.test.images, expected)
        assert read.test.labels.tolist() == [0] * 6 + [1] * 6
        assert image_keys(read.train) | image_keys(read.validation) == image_keys(read.test)

    @settings(max_examples=10, deadline=None)
    @given(seed=st.integers(0, 2**63 - 1))
    def test_flat_tree_is_split_by_seed(self, flat_tree, seed):
        first, again = (data.folder(flat_tree, validation=4, test=0.2, seed=seed) for _ in "ab")
        sets = [image_keys(split) for split in first.splits().values()]
        assert [len(s) for s in sets] == [12, 4, 4]
        assert len(set.union(*sets)) == 20
        for a, b in zip(first.splits().values(), again.splits().values(), strict=True):
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.labels, b.labels)

    def test_other_seed_splits_otherwise(self, flat_tree):
        first, other = (data.folder(flat_tree, validation=4, test=4, seed=s) for s in (0, 1))
        assert image_keys(first.test) != image_keys(other.test)

    def test_grey_palette_transparent_and_large_images_become_rgb_squares(self, tmp_path):
        make_tree(tmp_path, count=4, size=(50, 40))
        for i, mode in enumerate(("L", "P", "RGBA", "CMYK", "1")):
            suffix = ".tif" if mode == "CMYK" else ".PNG"
            picture(i, (40, 60)).convert(mode).save(tmp_path / "cat" / f"{mode}{suffix}")
        (tmp_path / "cat" / "notes.txt").write_text("passed over")
        (tmp_path / "cat" / ".hidden.png").write_text("passed over")
        (tmp_path / ".cache").mkdir()
        read = data.folder(tmp_path, image_px=16, validation=2, test=2)
        assert sum(len(split.labels) for split in read.splits().values()) == 13
        assert read.train.images.shape[1:] == (3, 16, 16)

    def test_photograph_taken_sideways_is_turned(self, tmp_path):
        make_tree(tmp_path / "train", count=2, size=(20, 10))
        for name in ("cat", "dog"):
            (tmp_path / "test" / name).mkdir(parents=True)
            exif = Image.Exif()
            exif[0x0112] = 6  # turn by 90 degrees to see it upright
            picture(0, (10, 20)).save(tmp_path / "test" / name / "0.png", exif=exif)
        read = data.folder(tmp_path, image_px=None, validation=2)
        upright = picture(0, (10, 20)).transpose(Image.Transpose.ROTATE_270)
        assert torch.equal(read.test.images[0], pixels(upright))

    def test_progress(self, flat_tree, capsys):
        data.folder(flat_tree, progress=True)
        assert "reading train: 100%" in capsys.readouterr().err

    def test_more_files_than_one_thread_reads_at_once(self, tmp_path):
        make_tree(tmp_path, count=300, size=(8, 8))
        read = data.folder(tmp_path, image_px=None)
        assert [len(split.labels) for split in read.splits().values()] == [480, 60, 60]
        assert len(set.union(*map(image_keys, read.splits().values()))) == 600


class TestBadFolders:
    def fails(self, root, *, words, error=ValueError, **arguments):
        with pytest.raises(error) as caught:
            data.folder(root, **arguments)
        for word in words:
            assert word in str(caught.value).replace("\\\\", "\\"), str(caught.value)

    def test_missing_root(self, tmp_path):
        root = tmp_path / "nowhere"
        self.fails(root, error=FileNotFoundError, words=["root", "nowhere", "not found"])

    def test_root_is_a_file(self, tmp_path):
        file = tmp_path / "pictures.zip"
        file.write_bytes(b"PK")
        self.fails(file, error=NotADirectoryError, words=["must be a folder", str(file)])

    def test_empty_folder(self, tmp_path):
        self.fails(tmp_path, words=["is empty", "one folder of images for each class"])

    def test_empty_class(self, tmp_path):
        make_tree(tmp_path)
        (tmp_path / "eel").mkdir()
        self.fails(tmp_path, words=["class folder", str(tmp_path / "eel"), ".png"])

    def test_test_folder_is_missing(self, tmp_path):
        make_tree(tmp_path / "train")
        self.fails(tmp_path, words=[str(tmp_path / "test"), "missing"])

    def test_different_classes(self, tmp_path):
        make_tree(tmp_path / "train", classes=("cat", "dog"))
        make_tree(tmp_path / "test", classes=("cat", "eel"))
        self.fails(tmp_path, validation=2, words=["only in train/: ['dog']", "['eel']"])

    @pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
    def test_truncated_jpeg(self, tmp_path, share):
        make_tree(tmp_path, suffix=".jpg")
        file = tmp_path / "dog" / "0003.jpg"
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * share)])
        self.fails(tmp_path, words=[str(file), "truncated"])

    @pytest.mark.parametrize("content", [b"", b"no picture at all", b"\x89PNG\r\n\x1a\n garbage"])
    def test_unreadable_image(self, tmp_path, content):
        make_tree(tmp_path)
        file = tmp_path / "cat" / "0002.png"
        file.write_bytes(content)
        self.fails(tmp_path, words=["cannot read the image", str(file)])
        self.fails(tmp_path, image_px=None, words=["cannot read the image", str(file)])

    def test_sixteen_bit_image(self, tmp_path):
        make_tree(tmp_path)
        file = tmp_path / "cat" / "deep.png"
        Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(file)
        self.fails(tmp_path, words=[str(file), "more than 8 bits"])

    def test_folder_named_like_an_image(self, tmp_path):
        make_tree(tmp_path)
        (tmp_path / "cat" / "strange.png").mkdir()
        self.fails(tmp_path, words=[str(tmp_path / "cat" / "strange.png")])

    def test_wrong_shape_when_sizes_are_kept(self, tmp_path):
        make_tree(tmp_path)
        file = tmp_path / "dog" / "9999.png"
        picture(0, (32, 31)).save(file)
        self.fails(tmp_path, image_px=None, words=["(32, 31)", str(file), "pass image_px"])
        assert data.folder(tmp_path).train.images.shape[1:] == (3, 32, 32)

    @pytest.mark.parametrize(
        ("arguments", "error", "word"),
        [
            ({"image_px": 0}, ValueError, "image_px"),
            ({"image_px": 32.0}, TypeError, "image_px"),
            ({"validation": 12}, ValueError, "validation"),
            ({"test": 0}, ValueError, "test"),
            ({"validation": 6, "test": 6}, ValueError, "leaves no training image of class 'cat'"),
            ({"seed": -1}, ValueError, "seed"),
        ],
    )
    def test_bad_arguments(self, tmp_path, arguments, error, word):
        self.fails(make_tree(tmp_path), error=error, words=[word], **arguments)


# ---------------------------------------------------------------- CIFAR-10 and Fashion-MNIST
#
# torchvision knows the MD5 sums of the real CIFAR-10 files. The tests write tiny files in the real
# format and subclass torchvision's CIFAR10 with the sums of those: its own reader and its own
# check both run. (For Fashion-MNIST torchvision checks no sums of unpacked files.)


@pytest.fixture
def cifar_root(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for name in names:
        rows = rng.integers(0, 256, (20, 3072), dtype=np.uint8)
        write_pickle(folder / name, {"data": rows, "labels": list(range(10)) * 2})
    write_pickle(folder / "batches.meta", {"label_names": list("abcdefghij")})
    publish_sums(folder, monkeypatch)
    return tmp_path


def write_pickle(file, content):
    file.write_bytes(pickle.dumps(content))


def publish_sums(folder, monkeypatch):
    """Make the files as they are now the official ones."""

    def listed(*names):
        return [[n, hashlib.md5((folder / n).read_bytes()).hexdigest()] for n in names]

    class TinyCIFAR10(torchvision.datasets.CIFAR10):
        train_list = listed(*[f"data_batch_{i}" for i in range(1, 6)])
        test_list = listed("test_batch")
        meta = torchvision.datasets.CIFAR10.meta | {"md5": listed("batches.meta")[0][1]}

        def download(self):
            raise OSError("no network")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", TinyCIFAR10)


class TestCifar10:
    def test_splits_hold_the_files_images(self, cifar_root):
        read = data.cifar10(cifar_root)
        counts = {name: split.labels.bincount().tolist() for name, split in read.splits().items()}
        assert counts == {"train": [9] * 10, "validation": [1] * 10, "test": [2] * 10}
        assert read.classes == tuple("abcdefghij")
        raw = pickle.loads((cifar_root / "cifar-10-batches-py" / "test_batch").read_bytes())
        assert torch.equal(read.test.images, torch.from_numpy(raw["data"]).view(20, 3, 32, 32))
        assert not image_keys(read.train) & image_keys(read.validation)

    def test_seed_chooses_validation(self, cifar_root):
        first, again, other = (data.cifar10(cifar_root, seed=s) for s in (0, 0, 1))
        assert torch.equal(first.validation.images, again.validation.images)
        assert image_keys(first.validation) != image_keys(other.validation)

    @pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
    def test_missing_file(self, cifar_root, name):
        file = cifar_root / "cifar-10-batches-py" / name
        file.unlink()
        with pytest.raises(FileNotFoundError, match=f"{name}'; pass download=True"):
            data.cifar10(cifar_root)

    @pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
    def test_damaged_file(self, cifar_root, name):
        file = cifar_root / "cifar-10-batches-py" / name
        file.write_bytes(file.read_bytes()[:-5] + b"wrong")
        with pytest.raises(ValueError, match=f"damaged file .*{name}'; pass download=True"):
            data.cifar10(cifar_root)

    def test_wrong_shape_inside(self, cifar_root, monkeypatch):
        folder = cifar_root / "cifar-10-batches-py"
        rows = np.zeros((20, 3000), dtype=np.uint8)
        write_pickle(folder / "test_batch", {"data": rows, "labels": [0] * 20})
        publish_sums(folder, monkeypatch)
        with pytest.raises(ValueError, match=r"cannot read .*cifar-10-batches-py.*reshape"):
            data.cifar10(cifar_root)

    def test_failed_download(self, cifar_root):
        (cifar_root / "cifar-10-batches-py" / "test_batch").unlink()
        with pytest.raises(OSError, match=r"cannot download TinyCIFAR10 into .*: no network"):
            data.cifar10(cifar_root, download=True)


@pytest.fixture
def fashion_root(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", 100), ("t10k", 20)):
        write_idx(raw / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28)))
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(count) % 10)
    return tmp_path


def write_idx(file: Path, values: np.ndarray) -> None:
    """The idx format: two zero bytes, type (8 is uint8), number of axes, their lengths, bytes."""
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    file.write_bytes(header + values.astype(np.uint8).tobytes())


class TestFashionMnist:
    def test_splits_hold_the_files_images(self, fashion_root):
        read = data.fashion_mnist(fashion_root)
        counts = {name: split.labels.bincount().tolist() for name, split in read.splits().items()}
        assert counts == {"train": [9] * 10, "validation": [1] * 10, "test": [2] * 10}
        assert read.classes[0] == "T-shirt/top"
        raw = (fashion_root / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte").read_bytes()
        grey = torch.frombuffer(bytearray(raw[16:]), dtype=torch.uint8).view(20, 28, 28)
        assert torch.equal(read.test.images[:, 1, 2:-2, 2:-2], grey)
        assert read.test.images[:, :, :2].max() == 0
        assert not image_keys(read.train) & image_keys(read.validation)

    @pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
    def test_missing_file(self, fashion_root, name):
        (fashion_root / "FashionMNIST" / "raw" / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"{name}'; pass download=True"):
            data.fashion_mnist(fashion_root)

    @pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
    @pytest.mark.parametrize("keep", [0, 3, 9, 25])
    @pytest.mark.parametrize("download", [False, True])
    def test_truncated_file(self, fashion_root, name, keep, download):
        file = fashion_root / "FashionMNIST" / "raw" / name
        file.write_bytes(file.read_bytes()[:keep])
        with pytest.raises(ValueError, match=f"cannot read .*{name}.*; delete it"):
            data.fashion_mnist(fashion_root, download=download)

    def test_damaged_header(self, fashion_root):
        file = fashion_root / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte"
        file.write_bytes(b"\xff" * 4 + file.read_bytes()[4:])
        with pytest.raises(ValueError, match=r"cannot read .*t10k-images-idx3-ubyte"):
            data.fashion_mnist(fashion_root)

    @pytest.mark.parametrize("shape", [(20, 28, 27), (19, 28, 28)])
    def test_wrong_shape_inside(self, fashion_root, shape):
        file = fashion_root / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte"
        write_idx(file, np.zeros(shape))
        with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte.* must hold 28x28 images"):
            data.fashion_mnist(fashion_root)

    def test_label_out_of_range(self, fashion_root):
        file = fashion_root / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte"
        write_idx(file, np.array([10] * 20))
        with pytest.raises(ValueError, match=r"fashion_mnist.test.labels must be in \[0, 9\]"):
            data.fashion_mnist(fashion_root)
