"""What X may hold its samples in, what is refused with what to give instead, and at what cost X is looked at."""

import sys
from collections import deque

import numpy as np
import pandas as pd
import pytest
import torch
from networks import tiny_cnn, tiny_vectors
from PIL import Image
from pretrained_models import make_sound_model
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor, load_image_folder
from sktransfer.inputs._containers import unwrap
from sktransfer.inputs._rows import Rows


class Untouchable(Dataset):
    """A data set that says so if a sample is asked for."""

    def __len__(self):
        return 6

    def __getitem__(self, row):
        pytest.fail("a sample was loaded")


class Columns:
    """What the package datasets looks like."""

    column_names = ("image", "label")
    shape = (6, 2)

    def __len__(self):
        return 6

    def __getitem__(self, row):
        pytest.fail("a sample was loaded")


class Sliced:
    """What skorch's SliceDataset looks like."""

    def __len__(self):
        return 6

    def __getitem__(self, row):
        pytest.fail("a sample was loaded")

    def __init__(self):
        self.dataset, self.indices, self.shape = Untouchable(), None, (6,)

    def __array__(self):
        pytest.fail("all samples were loaded")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("classes")
    for name in ("ant", "bee"):
        (root / name).mkdir()
        for number in range(3):
            Image.new("RGB", (8, 8), (90 * number, 50, 9)).save(root / name / f"{number}.png")
    return root


def refused(X, match, takes=(tiny_cnn, "resnet18", tiny_vectors)):
    """Assert that no estimator takes X, in these words, before its network is loaded; nor once it is fitted."""
    images = np.random.default_rng(0).integers(0, 255, (6, 8, 8, 3), dtype=np.uint8)
    for make in (PretrainedFeatureExtractor, FineTunedClassifier):
        for backbone in takes:
            with pytest.raises(ValueError, match=match) as caught:
                make(backbone, weights=None).fit(X, [0, 1] * 3)
            assert len(str(caught.value)) < 600
    fitted = FineTunedClassifier(tiny_cnn).fit(images, [0, 1] * 3)
    with pytest.raises(ValueError, match=match):
        fitted.predict(X)


def test_data_sets_of_torch_are_refused_before_a_sample_is_loaded(folder, monkeypatch):
    pictures = ImageFolder(folder)
    monkeypatch.setattr(pictures, "loader", lambda path: pytest.fail("a picture was loaded"))
    paths = r"X=\[path for path, _ in dataset.samples\], y=dataset.targets; .*load_image_folder"
    refused(pictures, f"Got X of type ImageFolder; expected several samples.*{paths}")
    refused(
        DataLoader(pictures), r"Got X of type DataLoader; .*path, _ in loader.dataset.samples\], y=loader.dataset.t"
    )
    refused(
        Subset(pictures, [0, 1]), r"of type Subset; .*X=\[dataset.dataset.samples\[i\]\[0\] for i in dataset.indices"
    )
    refused(ConcatDataset([pictures, pictures]), r"ConcatDataset; .*X=\[row\[0\] for row in dataset\]")
    refused(TensorDataset(torch.zeros(6, 3, 8, 8), torch.zeros(6)), "Give its tensors: X, y = dataset.tensors")
    refused(Untouchable(), r"Got X of type Untouchable; .*X=\[row\[0\] for row in dataset\]")
    refused(DataLoader(Untouchable()), r"Got X of type DataLoader; .*in loader.dataset\]")
    refused(
        pictures.samples, r"Got X\[0\] as a tuple of \(str, int\).*X=\[row\[0\] for row in X\], and give labels as y"
    )


def test_what_a_refused_data_set_says_works(folder):
    dataset = ImageFolder(folder)
    X, y = [path for path, _ in dataset.samples], dataset.targets
    assert FineTunedClassifier(tiny_cnn).fit(X, y).predict(X).shape == (6,)
    dataset = Subset(dataset, [0, 4])
    X = [dataset.dataset.samples[i][0] for i in dataset.indices]
    assert PretrainedFeatureExtractor(tiny_cnn).fit_transform(X).shape == (2, 16)


@pytest.mark.parametrize(
    ("X", "match"),
    [
        (Columns(), r"X=list\(dataset\['image'\]\). Its columns: \('image', 'label'\)"),
        (Sliced(), r"Put them into a list: X=list\(X\)"),
        ({"data": [1], "target": [1]}, "X=bunch.data, y=bunch.target"),
        ({"pictures": [1]}, r"X\['pictures'\]"),
        ((name for name in "ab"), r"Put them into a list: X=list\(X\)"),
        ({"a.png"}, r"X=list\(X\)"),
        (deque(["a.png"]), r"X=list\(X\)"),
        (b"a.png", "Put a single text or file into a list"),
        ("a long text " * 1000, "Put a single path, image or text into a list"),
        (3, "Got X of type int; expected several samples"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_holds_no_rows_is_refused_with_what_to_give(X, match):
    refused(X, match)


def test_a_folder_as_it_was_loaded_says_how_to_give_it(folder):
    refused(load_image_folder(folder), "Got X of type ImageFolder; .*X=bunch.data, y=bunch.target")


WAVE = np.zeros(4000, dtype=np.float32)
PICTURES = np.random.default_rng(0).integers(1, 255, (6, 8, 8, 3)).astype(np.uint8)
MASKED = np.ma.masked_array(PICTURES, mask=PICTURES > 250)


@pytest.mark.parametrize(
    ("X", "match"),
    [
        (
            [(WAVE, 16000)] * 6,
            r"Got X\[0\] as a tuple of \(ndarray, int\); .*X=\[row\[0\] for row in X\].*sampling_rate",
        ),
        ([(16000, WAVE)] * 6, r"Got X\[0\] as a tuple of \(int, ndarray\); .*X=\[row\[1\] for row in X\]"),
        ([[torch.zeros(1, 100), 16000, "yes"]] * 6, r"Got X\[0\] as a list of \(Tensor, int, str\)"),
        ([(Image.new("RGB", (8, 8)), 1)] * 6, r"Got X\[0\] as a tuple of \(Image, int\)"),
        (
            [{"image": PICTURES[0], "label": 1}] * 6,
            r"rows of X that are dicts.*'image'.*X=\[row\['image'\] for row in X",
        ),
        ([[1, 2], [1, 2, 3]] * 3, r"rows of different lengths \(row 0: 2, row 1: 3\)"),
        ([[[1, 2], [3]], [[1, 2], [3, 4]]] * 3, r"rows of different lengths \(within a row\)"),
        ([[1, 2], 3] * 3, r"rows of different lengths \(row 0: 2, row 1: a number\)"),
        (MASKED, r"Got X as a masked array in which \d+ values are masked.*X.filled\(value\)"),
        ([np.ma.masked_array([1.0, 2.0], mask=[0, 1])] * 6, r"Got X\[0\] as a masked array"),
        (torch.zeros(6, 3, 8, 8, dtype=torch.bfloat16), r"Got X as a tensor of type torch.bfloat16.*Give X.float\(\)"),
        (torch.zeros(6, 4, dtype=torch.bfloat16), r"torch.bfloat16.*Give X.float\(\)"),
        ([torch.zeros(4, dtype=torch.bfloat16)] * 6, r"Got X\[0\] as a tensor of type torch.bfloat16"),
        (torch.zeros(6, 4).to_sparse(), r"layout torch.sparse_coo.*X.to_dense\(\)"),
        (torch.zeros(6, 4, device="meta"), "holds no values"),
        (np.zeros((6, 4), dtype=complex), r"Complex data not supported: got X of type complex128"),
        (np.zeros((6, 8, 8, 3), dtype=complex), r"Complex data not supported.*X.real"),
        (torch.zeros(6, 4, dtype=torch.complex64), "Complex data not supported"),
        (np.zeros(6, dtype=[("a", "f4"), ("b", "i4")]), r"with the fields \['a', 'b'\].*Give X\['a'\]"),
        (np.rec.array([(1, 2.0)] * 6), "with the fields"),
        (np.full((6, 2), "2020-01-01", dtype="M8[D]"), r"Got X of type datetime64\[D\]"),
        (pd.DataFrame({"a": pd.to_datetime(["2020-01-01"] * 6), "b": 1.0}), "Got X of 2 columns that are not all num"),
        (np.arange(900.0), r"Expected 2D array, got 1D array instead: X of shape \(900,\).*Reshape your data"),
        ([0.5] * 900, "Expected 2D array, got 1D array instead"),
    ],
    ids=range(24),
)
def test_rows_that_are_no_samples_are_refused_with_what_to_do(X, match):
    refused(X, match)


@pytest.mark.parametrize(
    "row", [torch.zeros(3, 8, 8, dtype=torch.bfloat16), MASKED[0], np.zeros((8, 8), dtype=complex)]
)
def test_a_row_that_numpy_cannot_hold_is_named_or_becomes_nan(row):
    row = np.ma.masked_array(row, mask=True) if isinstance(row, np.ma.MaskedArray) else row
    X = [*PICTURES, row]
    with pytest.raises(ValueError, match=r"X\[6\]"):
        PretrainedFeatureExtractor(tiny_cnn).fit(X)
    with pytest.warns(UserWarning, match="1 of 7 samples"):
        features = PretrainedFeatureExtractor(tiny_cnn, on_bad_sample="nan").fit_transform(X)
    assert np.isnan(features).all(axis=1).tolist() == [False] * 6 + [True]


@pytest.mark.parametrize(
    "form",
    [
        lambda X: torch.tensor(X).requires_grad_(),
        lambda X: list(torch.tensor(X).requires_grad_()),
        lambda X: torch.tensor(X).to(torch.float64),
        lambda X: np.ma.masked_array(X),
        lambda X: [np.ma.masked_array(row) for row in X],
        lambda X: tuple(X),
        lambda X: [tuple(row) for row in X],
        np.asmatrix,
        lambda X: pd.DataFrame(X, columns=["dataset", "indices", "column_names", "tensors"]),
        lambda X: pd.DataFrame(X).astype("Float64").rename(columns=str),
    ],
    ids=range(10),
)
def test_other_forms_of_numbers_are_taken(form):
    X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    fitted = PretrainedFeatureExtractor(tiny_vectors, random_state=0)
    expected = fitted.fit_transform(X)
    np.testing.assert_array_equal(fitted.fit_transform(form(X)), expected)


def test_arrays_in_the_cells_of_a_column_are_samples():
    cells = pd.DataFrame({"sound": pd.Series([np.zeros(5), np.zeros(5), np.zeros(7)])})
    assert isinstance(unwrap(cells), list)
    assert Rows(cells).have_columns


# The cost of a look


class Calls:
    """Counts calls of Python and C functions, among them those of generators, while it is watched."""

    def __enter__(self):
        self.count = 0
        self.before = sys.getprofile()
        sys.setprofile(self.see)
        return self

    def see(self, frame, event, argument):
        self.count += 1

    def __exit__(self, *error):
        sys.setprofile(self.before)


N = 200_000
LONG = {
    "array of sounds": lambda: np.zeros((3, N), dtype=np.float32),
    "integers": lambda: np.zeros((3, N), dtype=np.int16),
    "list of arrays": lambda: [np.zeros(N), np.zeros(N)],
    "list of arrays of other lengths": lambda: [np.zeros(N), np.zeros(N + 1)],
    "list of lists": lambda: [[0.1] * N, [0.2] * N],
    "list of tensors": lambda: [torch.zeros(N), torch.zeros(N)],
    "tuple": lambda: (np.zeros(N), np.zeros(N)),
    "objects of one length": lambda: np.zeros((2, N)).astype(object),
    "one sound": lambda: np.zeros(N),
    "one sound as a list": lambda: [0.1] * N,
    "one sound of nothing": lambda: np.full(N, np.nan),
    "flat pictures": lambda: np.zeros((3, N), dtype=np.uint8),
    "pictures": lambda: np.zeros((2, 100, 500, 3), dtype=np.uint8),
    "table": lambda: pd.DataFrame(np.zeros((N, 2))),
}


@pytest.mark.parametrize("form", LONG)
def test_a_long_sample_is_looked_at_without_a_loop_over_its_values(form):
    X = LONG[form]()
    with Calls() as calls:
        rows = Rows(X)
        assert rows.kind(takes="sounds") in ("sounds", "vectors")
        assert isinstance(rows.have_columns, bool)
    assert calls.count < N / 100


@pytest.mark.parametrize("form", [np.asarray, list, lambda X: [*X, X[0, 1:]]], ids=["array", "list", "other lengths"])
def test_a_long_sound_is_fitted_and_read_without_a_loop_over_its_values(form, tmp_path):
    name = make_sound_model("wav2vec2", tmp_path / "model")

    def calls_for(length):
        X = form(np.sin(np.arange(3 * length) / 7).reshape(3, length).astype(np.float32))
        extractor = PretrainedFeatureExtractor(name, sampling_rate=length, feature_cache=None)  # a second each
        extractor.fit(X)
        with Calls() as calls:
            extractor.fit(X).transform(X)
        return calls.count

    assert abs(calls_for(N) - calls_for(N // 10)) < N / 100
