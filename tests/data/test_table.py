"""Images in CSV files: with and without names and labels; damaged files are refused."""

from __future__ import annotations

import gzip
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tests.data.test_idx import save
from xpnet.data import csv_images, table

rng = np.random.default_rng(0)
X = rng.integers(0, 256, (7, 1, 3, 3)).astype(np.uint8)
Y = np.array([3, 1, 0, 2, 1, 9, 0])
NAMES = ["label", *(f"pixel{k}" for k in range(9))]


def text(rows, names=None) -> bytes:
    lines = [",".join(map(str, row)) for row in rows]
    return "\n".join([*([",".join(names)] if names else []), *lines, ""]).encode()


LABELLED = np.column_stack([Y, X.reshape(7, 9)])
TRAIN, TEST = text(LABELLED, NAMES), text(LABELLED[:4, 1:], NAMES[1:])


def expect(data, x=X, y=Y):
    np.testing.assert_array_equal(data[:][0], x, strict=True)
    assert data.labels.tolist() == y.tolist() and data.scale == 255


@pytest.mark.parametrize("content", {
    "Kaggle's": TRAIN, "without names": text(LABELLED), "packed": gzip.compress(TRAIN),
    "Windows": b"\xef\xbb\xbf" + TRAIN.replace(b"\n", b"\r\n"), "no end of line": TRAIN[:-1],
    "quotes": TRAIN.replace(b"label", b'"Label"'), "spaces": TRAIN.replace(b",", b", "),
    "floats": text(LABELLED.astype(float), NAMES), "empty lines": TRAIN.replace(b"\n", b"\n\n"),
    "other order": text(np.roll(LABELLED, -1, axis=1), [*NAMES[1:], "label"]),
    "ids": text(np.column_stack([np.arange(7), LABELLED]), ["id", *NAMES]),
}.items(), ids=lambda item: item[0])
def test_forms(tmp_path, content):
    expect(csv_images(save(tmp_path / "some.csv", content[1])))


def test_a_folder_of_kaggle(tmp_path):
    save(tmp_path / "Train.csv", TRAIN)
    save(tmp_path / "test.csv.gz", gzip.compress(TEST))
    save(tmp_path / "sample_submission.csv", b"ImageId,Label\n1,0\n")
    data = csv_images(tmp_path)
    expect(data)
    np.testing.assert_array_equal(data.test[:][0], X[:4])
    assert data.test.labels is None and data.test.classes == data.classes
    data = csv_images(tmp_path / "Train.csv", test=tmp_path / "Train.csv")
    expect(data.test)


@pytest.mark.parametrize("content, labelled", [(text(LABELLED[:4]), True),
                                               (text(LABELLED[:4, 1:]), False)])
def test_test_files_without_names(tmp_path, content, labelled):
    data = csv_images(save(tmp_path / "a", TRAIN), test=save(tmp_path / "b", content))
    np.testing.assert_array_equal(data.test[:][0], X[:4])
    assert (data.test.labels is not None) == labelled


def test_columns_and_shapes(tmp_path):
    path = save(tmp_path / "x.csv", text(np.roll(LABELLED, -1, axis=1)))
    expect(csv_images(path, label=9))
    plain = csv_images(save(tmp_path / "y.csv", TEST), label=None)
    assert plain.labels is None and len(plain) == 4
    colour = rng.integers(0, 256, (5, 2, 3, 4)).astype(np.uint8)
    rows = np.column_stack([np.arange(5), colour.reshape(5, 24)])
    expect(csv_images(save(tmp_path / "z.csv", text(rows)), shape=(2, 3, 4)), colour, np.arange(5))


def test_a_share_for_validation(tmp_path):
    rows = np.column_stack([np.arange(40) % 2, rng.integers(0, 256, (40, 4))])
    data = csv_images(save(tmp_path / "x.csv", text(rows)), validation=0.25, seed=1)
    assert len(data) == 30 and np.bincount(data.validation.labels).tolist() == [5, 5]


def test_files_of_many_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "CHUNK", 60)
    expect(csv_images(save(tmp_path / "x.csv", TRAIN)))
    bad = TRAIN.replace(b"\n" + text(LABELLED[5:6]), b"\n9,9\n")
    with pytest.raises(ValueError, match=r"from row \d: expected (10 columns|rows of numbers)"):
        csv_images(save(tmp_path / "x.csv", bad))


@pytest.mark.parametrize("content, message", [
    (b"", "expected a row for each image. Received: an empty file."),
    (b"\n\n", "Received: an empty file."),
    (text([], NAMES), "Received: a row of names alone."),
    (TRAIN + b"1,2\n", "expected rows of numbers. Received: "),
    (TRAIN + text([LABELLED[0, :-1]]), "expected rows of numbers. Received: .*columns"),
    (TRAIN.replace(b"label", b"class"), "expected a column 'label'; label=None for a file without "
                                        "labels. Received: the columns class, pixel0"),
    (text(LABELLED[:, :-1], NAMES[:-1]), r"expected columns for the pixels of images of shape "
                                         r"\(1, 2, 2\); shape=\(C, H, W\) says another. Received: "
                                         r"8 columns."),
    (b"label\n1\n", "Received: 0 columns"),
    (text(LABELLED + 256, NAMES), "expected pixels from 0 to 255. Received: [345]"),
    (text(LABELLED - 1.0, NAMES), "expected whole numbers, 0 or larger"),
    (text(LABELLED + 0.5, NAMES), "expected whole numbers"),
    (text(LABELLED * np.nan, NAMES), "expected whole numbers"),
    (TRAIN + b"cat," + text([LABELLED[0, 1:]]), "expected rows of numbers. Received: could not"),
    (TRAIN + b"\0\n", "expected rows of numbers"),
    (gzip.compress(TRAIN)[:-9], "expected a whole gzip file"),
    (b"PK\x03\x04" + TRAIN, "expected a column 'label'"),
])
def test_damaged_files(tmp_path, content, message):
    with pytest.raises(ValueError, match=f"^csv_images '.*x.csv'.*: .*{message}") as caught:
        csv_images(save(tmp_path / "x.csv", content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name, remedy", [
    ("x.npz", "; read a file of NumPy with np.load, and pass the arrays to net.fit"),
    ("x.npy", "; read a file of NumPy with np.load, and pass the arrays to net.fit"), ("x.csv", ""),
])
def test_arrays_of_numpy_are_no_csv_file(tmp_path, name, remedy):
    with open(tmp_path / name, "wb") as file:
        (np.save if name.endswith(".npy") else np.savez)(file, np.zeros(3))
    with pytest.raises(ValueError, match=f"^csv_images '.*{name}': expected a CSV file, which is "
                                         f"text{remedy}. Received: a file of another format.$"):
        csv_images(tmp_path / name)


def test_bytes_changed_anywhere(tmp_path, number):
    for _ in range(number(200)):
        raw = bytearray(TRAIN)
        for _ in range(rng.integers(1, 4)):
            raw[rng.integers(0, len(raw))] = rng.integers(0, 256)
        try:
            data = csv_images(save(tmp_path / "x.csv", bytes(raw)))
            assert data.shape[0] == 1
        except ValueError as error:
            assert "\n" not in str(error) and re.match("csv_images|Dataset", str(error))


def test_a_line_without_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "LONGEST", 1 << 16)
    path = save(tmp_path / "x.csv", gzip.compress(b"1," * (32 << 20), 1))
    tracemalloc.start()
    with pytest.raises(ValueError, match="expected lines of at most 65536 bytes"):
        csv_images(path)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("arguments, message", [
    ({"path": "nothing.csv"}, "expected a CSV file. Received: nothing.csv, which does not exist."),
    ({"test": "nothing.csv"}, "Received: nothing.csv, which does not exist."),
    ({"path": "."}, "Received: train.csv, which does not exist."),
    ({"path": 3}, "expected the name of a file"), ({"shape": 3}, "expected shape to be None or "),
    ({"shape": (1, 3)}, "expected shape"), ({"shape": (3, 3, 3)}, "Received: 9 columns"),
    ({"label": 1.0}, "expected label to be None or the name or number of a column"),
    ({"label": -1}, "expected label"), ({"label": 10}, "expected a column 10 of labels. Received: "
                                                       "10 columns."),
    ({"validation": 2}, "expected validation"), ({"seed": "x"}, "expected seed"),
])
def test_bad_arguments(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    save(Path("x.csv"), TRAIN)
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message):
        csv_images(**{"path": "x.csv"} | arguments)


def test_labels_of_a_test_file_that_training_does_not_have(tmp_path):
    more = LABELLED.copy()
    more[0, 0] = 10
    with pytest.raises(ValueError, match="expected labels from 0 to 9, as in .* Received: a label "
                                         "10."):
        csv_images(save(tmp_path / "a", TRAIN), test=save(tmp_path / "b", text(more, NAMES)))
