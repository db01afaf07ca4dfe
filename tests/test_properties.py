"""What holds for any X and any y: found out on shapes, types, memory orders and labels that nobody thought of."""

import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from networks import tiny_cnn, tiny_vectors
from PIL import Image
from sklearn.linear_model import LogisticRegression

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.backbones import ImagePreprocessing

pytestmark = pytest.mark.exhaustive


def examples(count):
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


def network_of(preprocessing=None, in_channels=3):
    torch.manual_seed(0)
    network = tiny_cnn(in_channels, width=4)
    if preprocessing is not None:
        network.preprocessing = preprocessing
    return network


NETWORKS = {
    "any size": network_of(),
    "one size": network_of(ImagePreprocessing(9, (8, 8), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))),
    "grey": network_of(ImagePreprocessing(crop=(8, 8), channels=1), in_channels=1),
}
ROWS = tiny_vectors(5)


@contextmanager
def any_range():
    """Images of all kinds of values: that some are suspicious is tested elsewhere."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Got image values", UserWarning)
        yield


def extractor_of(network, X, **parameters):
    with any_range():
        return PretrainedFeatureExtractor(
            NETWORKS[network], **{"precision": "float32", "feature_cache": None, "n_jobs": 1, **parameters}
        ).fit(X)


def features_of(extractor, X):
    with any_range():
        return extractor.transform(X)


def assert_close(actual, desired):
    np.testing.assert_allclose(actual, desired, rtol=1e-5, atol=1e-5)


# Arrays

INTEGERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]
DTYPES = ["?", *INTEGERS, "f2", "f4", "f8", ">i2", ">i4", ">i8", ">u2", ">u4", ">u8", ">f2", ">f4", ">f8"]
seeds = st.integers(0, 2**32 - 1)
networks = st.sampled_from(sorted(NETWORKS))
caches = st.sampled_from([None, "auto"])


@st.composite
def pixels(draw, shape):
    """Values of one type, from black, which may be negative, to a white of some scale."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    rng = np.random.default_rng(draw(seeds))
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.kind == "f":
        white = draw(st.sampled_from([1.0, 1e-3, 255.0, 65000.0]))
        black = draw(st.sampled_from([0.0, -white]))
        return (black + rng.random(shape) * (white - black)).astype(dtype)
    most = np.iinfo(dtype).max
    white = draw(st.sampled_from([top for top in (1, 100, 255, 4095, 65535) if top <= most] + [int(most)]))
    black = draw(st.sampled_from([0, -white] if dtype.kind == "i" else [0]))
    return rng.integers(black, white, shape, dtype.newbyteorder("="), endpoint=True).astype(dtype)


@st.composite
def arrays(draw, least=2):
    """An X that is one array, and the image_shape that goes with it."""
    n, height, width = draw(st.integers(least, 5)), draw(st.integers(8, 12)), draw(st.integers(8, 12))
    channels = draw(st.sampled_from([1, 3, 4]))
    form = draw(st.sampled_from(["n h w", "n h w c", "n c h w", "rows of h w", "rows of h w c"]))
    shape = {
        "n h w": (n, height, width),
        "n h w c": (n, height, width, channels),
        "n c h w": (n, channels, height, width),
        "rows of h w": (n, height * width),
        "rows of h w c": (n, height * width * channels),
    }[form]
    image_shape = {"rows of h w": (height, width), "rows of h w c": (height, width, channels)}.get(form)
    return draw(pixels(shape)), image_shape


def memory_mapped(X):
    with tempfile.TemporaryFile() as file:
        mapped = np.memmap(file, X.dtype, "w+", shape=X.shape)
    mapped[...] = X
    return mapped


def unaligned(X):
    held = np.empty(X.nbytes + 1, dtype=np.uint8)
    view = np.ndarray(X.shape, X.dtype, held.data, offset=1)
    view[...] = X
    return view


def read_only(X):
    X = X.copy()
    X.flags.writeable = False
    return X


def every_second(X, axis):
    shape = list(X.shape)
    shape[axis] *= 2
    wide = np.zeros(shape, X.dtype)
    view = wide[(slice(None),) * axis + (slice(1, None, 2),)]
    view[...] = X
    return view


def backwards(X, axes):
    return np.flip(np.flip(X, axes).copy(), axes)


def repeated(X, axis):
    """One slice, seen along a whole axis: other values than X, at one place in memory."""
    return np.broadcast_to(X.take([0], axis), X.shape)


@st.composite
def orders(draw, X):
    """X, or what is like it, in another order of memory."""
    axis = draw(st.integers(0, X.ndim - 1))
    axes = tuple(draw(st.sets(st.integers(0, X.ndim - 1), min_size=1)))
    order = draw(st.permutations(range(X.ndim)))
    return draw(
        st.sampled_from(
            [
                np.asfortranarray(X),
                X.transpose(order).copy().transpose(np.argsort(order)),
                backwards(X, axes),
                every_second(X, axis),
                backwards(every_second(X, axis), axes),
                read_only(X),
                memory_mapped(X),
                unaligned(X),
                repeated(X, axis),
            ]
        )
    )


@given(st.data(), arrays(), networks, caches)
@examples(60)
def test_features_of_any_array_are_finite_float32_a_row_an_image(data, drawn, network, cache):
    X, image_shape = drawn
    extractor = extractor_of(network, X, image_shape=image_shape, feature_cache=cache)
    features = features_of(extractor, X)
    assert features.dtype == np.float32
    assert features.shape == (len(X), extractor.n_features_out_)
    assert np.isfinite(features).all()


@given(st.data(), arrays(), networks, caches)
@examples(60)
def test_a_row_of_features_depends_on_its_own_image_alone(data, drawn, network, cache):
    X, image_shape = drawn
    extractor = extractor_of(network, X, image_shape=image_shape, feature_cache=cache)
    features = features_of(extractor, X)
    row = data.draw(st.integers(0, len(X) - 1))
    assert_close(features_of(extractor, X[row : row + 1])[0], features[row])
    others = np.random.default_rng(data.draw(seeds)).permuted(X.reshape(len(X), -1), axis=1).reshape(X.shape)
    others[row] = X[row]
    assert_close(features_of(extractor, others)[row], features[row])


@given(st.data(), arrays(), networks, caches)
@examples(40)
def test_the_order_of_images_is_the_order_of_features(data, drawn, network, cache):
    X, image_shape = drawn
    extractor = extractor_of(network, X, image_shape=image_shape, feature_cache=cache)
    order = data.draw(st.permutations(range(len(X))))
    assert_close(features_of(extractor, X[order]), features_of(extractor, X)[order])


@given(st.data(), arrays(), networks)
@examples(80)
def test_the_order_of_memory_changes_no_bit(data, drawn, network):
    X, image_shape = drawn
    laid = data.draw(orders(X))
    plain = np.array(laid, order="C")
    expected = features_of(extractor_of(network, plain, image_shape=image_shape), plain)
    extractor = extractor_of(network, laid, image_shape=image_shape)
    np.testing.assert_array_equal(features_of(extractor, laid), expected)


@given(st.data(), arrays(), networks, caches)
@examples(40)
def test_the_byte_order_changes_no_bit(data, drawn, network, cache):
    X, image_shape = drawn
    swapped = X.astype(X.dtype.newbyteorder("S"))
    expected = features_of(extractor_of(network, X, image_shape=image_shape), X)
    extractor = extractor_of(network, swapped, image_shape=image_shape)
    np.testing.assert_array_equal(features_of(extractor, swapped), expected)
    np.testing.assert_array_equal(features_of(extractor, X), expected)


@given(st.data(), arrays(), networks, caches)
@examples(40)
def test_an_array_is_not_changed(data, drawn, network, cache):
    X, image_shape = drawn
    laid = data.draw(orders(X))
    before, about = np.array(laid, order="C"), (laid.dtype, laid.strides, laid.flags.writeable, type(laid))
    features_of(extractor_of(network, laid, image_shape=image_shape, feature_cache=cache), laid)
    np.testing.assert_array_equal(laid, before)
    assert (laid.dtype, laid.strides, laid.flags.writeable, type(laid)) == about


@given(arrays(), networks, st.sampled_from(["channels last", "channels first", "list", "rows", "table"]))
@examples(40)
def test_what_an_array_looks_like_does_not_matter(drawn, network, form):
    X, image_shape = drawn
    if image_shape is not None:
        X = X.reshape(len(X), *image_shape)
    expected = features_of(extractor_of(network, X), X)
    last = X[..., None] if X.ndim == 3 else X if X.shape[-1] in (1, 3, 4) else X.transpose(0, 2, 3, 1)
    flat = last.reshape(len(X), -1)
    same = {
        "channels last": last,
        "channels first": last.transpose(0, 3, 1, 2),
        "list": list(X),
        "rows": flat,
        "table": pd.DataFrame(flat.astype(flat.dtype.newbyteorder("=")), index=range(len(X), 0, -1)),
    }[form]
    shape = last.shape[1:] if form in ("rows", "table") else None
    np.testing.assert_array_equal(features_of(extractor_of(network, same, image_shape=shape), same), expected)


@given(
    st.integers(1, 4),
    seeds,
    st.sampled_from(["i4", "i8", "u4", "u8", "f4", "f8"]),
    st.sampled_from([0, 100, 10**6, 10**9, -(10**6)]),
    st.sampled_from([255, 1000]),
)
@examples(60)
def test_only_the_place_between_black_and_white_matters(n, seed, dtype, black, span):
    levels = np.random.default_rng(seed).integers(0, span, (n, 8, 8, 3), endpoint=True)
    X = (black + levels).astype(dtype)
    if (X.astype(float) != black + levels).any():  # a type that cannot hold them
        return
    moved = extractor_of("any size", X, pixel_range=(black, black + span))
    plain = extractor_of("any size", levels / span, pixel_range=(0, 1))
    np.testing.assert_allclose(features_of(moved, X), features_of(plain, levels / span), rtol=1e-4, atol=1e-4)


@given(
    seeds,
    st.sampled_from(["f2", "f4", "f8", "i8", "u8"]),
    st.sampled_from([1e-300, 1e-40, 1e-7, 6e4, 1e16, 1e19, 1e30, 3e38, 1e300]),
    st.sampled_from(["from 0", "from negative", "constant"]),
)
@examples(60)
def test_values_of_any_size_give_finite_features_or_are_refused(seed, dtype, size, how):
    unit = np.random.default_rng(seed).random((3, 8, 8, 3))
    values = {"from 0": unit, "from negative": unit - 0.5, "constant": np.ones_like(unit)}[how] * size
    dtype = np.dtype(dtype)
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    X = np.clip(values, float(limits.min) * 0.99, float(limits.max) * 0.99).astype(dtype)
    with np.errstate(all="ignore"):
        try:
            features, refusal = features_of(extractor_of("any size", X), X), None
        except ValueError as error:
            features, refusal = None, str(error)
    assert np.isfinite(features).all() if refusal is None else "pixel_range" in refusal


# Lists of pictures, paths and arrays

MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pictures")


@st.composite
def pictures(draw):
    size = draw(st.integers(6, 14)), draw(st.integers(6, 14))
    mode = draw(st.sampled_from(MODES))
    rng = np.random.default_rng(draw(seeds))
    if mode == "F":
        return Image.fromarray(rng.random(size, dtype=np.float32))
    if mode in ("I;16", "I"):
        return Image.fromarray(rng.integers(0, 65536, size).astype({"I;16": np.uint16, "I": np.int32}[mode]))
    return Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).convert(mode)


@st.composite
def single_arrays(draw):
    height, width = draw(st.integers(6, 14)), draw(st.integers(6, 14))
    channels = draw(st.sampled_from([None, 1, 3, 4]))
    shape = (height, width) if channels is None else (height, width, channels)
    X = draw(pixels(shape))
    X = draw(st.sampled_from([X, X.transpose(2, 0, 1) if channels else X]))
    return draw(st.sampled_from([X, np.asfortranarray(X), backwards(X, 1), every_second(X, 0), read_only(X)]))


def as_path(picture, folder):
    """Save a picture, without loss, under a name of its own."""
    ending = "tiff" if picture.mode in ("F", "I", "CMYK") else "png"
    file = folder / f"{picture.mode.replace(';', '')}-{hash((picture.tobytes(), picture.size))}.{ending}"
    if not file.exists():
        picture.save(file)
    return file


@st.composite
def lists(draw, of=("array", "picture", "path", "text")):
    """Rows of several kinds; paths come as pictures that are yet to be saved."""
    kinds = draw(st.lists(st.sampled_from(of), min_size=2, max_size=5))
    return [(kind, draw(single_arrays() if kind == "array" else pictures())) for kind in kinds]


def saved(drawn, folder):
    made = {"array": lambda row: row, "picture": lambda row: row}
    made |= {"path": lambda row: as_path(row, folder), "text": lambda row: str(as_path(row, folder))}
    return [made[kind](row) for kind, row in drawn]


def objects(rows):
    X = np.empty(len(rows), dtype=object)
    for number, row in enumerate(rows):
        X[number] = row
    return X


def odd_index(rows):
    return [(-7, 3.5, "a")[number % 3] for number in range(len(rows))]


CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "object array": objects,
    "column of objects": lambda rows: objects(rows)[:, None],
    "Series": lambda rows: pd.Series(objects(rows), index=odd_index(rows)),
    "DataFrame": lambda rows: pd.DataFrame({"image": objects(rows)}, index=odd_index(rows)),
}
containers = st.sampled_from(sorted(CONTAINERS))
fixed_size = st.sampled_from(["grey", "one size"])


@given(st.data(), lists(), containers, fixed_size, caches)
@examples(60)
def test_a_row_of_any_list_depends_on_itself_alone(folder, data, drawn, container, network, cache):
    rows = saved(drawn, folder)
    held = CONTAINERS[container]
    extractor = extractor_of(network, held(rows), feature_cache=cache)
    features = features_of(extractor, held(rows))
    assert features.dtype == np.float32
    assert features.shape == (len(rows), extractor.n_features_out_)
    assert np.isfinite(features).all()
    row = data.draw(st.integers(0, len(rows) - 1))
    assert_close(features_of(extractor, held([rows[row]]))[0], features[row])
    order = data.draw(st.permutations(range(len(rows))))
    assert_close(features_of(extractor, held([rows[number] for number in order])), features[order])


@given(lists(), containers, fixed_size)
@examples(40)
def test_what_holds_the_rows_of_a_list_changes_no_bit(folder, drawn, container, network):
    rows = saved(drawn, folder)
    held = CONTAINERS[container]
    plain = [row.copy(order="C") if isinstance(row, np.ndarray) else row for row in rows]
    expected = features_of(extractor_of(network, plain), plain)
    np.testing.assert_array_equal(features_of(extractor_of(network, held(rows)), held(rows)), expected)


@given(lists(), containers, fixed_size)
@examples(30)
def test_the_rows_of_a_list_are_not_changed(folder, drawn, container, network):
    rows = saved(drawn, folder)
    held = CONTAINERS[container]
    before = [np.array(row) if isinstance(row, np.ndarray | Image.Image) else Path(row).read_bytes() for row in rows]
    features_of(extractor_of(network, held(rows)), held(rows))
    for row, was in zip(rows, before, strict=True):
        if isinstance(was, bytes):
            assert Path(row).read_bytes() == was
        else:
            np.testing.assert_array_equal(np.array(row), was)
            assert np.array(row).dtype == was.dtype


@given(st.data(), lists(("picture",)), st.lists(single_arrays(), min_size=2, max_size=4))
@examples(40)
def test_arrays_after_a_fit_on_pictures_depend_on_themselves_alone_too(data, drawn, later):
    extractor = extractor_of("one size", [picture for _, picture in drawn])
    try:
        features = features_of(extractor, later)
    except ValueError as error:  # they are of several scales, and nobody has said which is which
        assert "which fit did not see" in str(error) or "as in fit" in str(error)  # noqa: PT017
        return
    row = data.draw(st.integers(0, len(later) - 1))
    assert_close(features_of(extractor, [later[row]])[0], features[row])


# Rows of numbers

tables = st.tuples(st.integers(1, 70), seeds, st.sampled_from(DTYPES)).map(lambda drawn: table_of(*drawn))
batch_sizes = st.sampled_from([1, 5, 32])


def table_of(n, seed, dtype):
    values = np.random.default_rng(seed).normal(scale=30, size=(n, 5))
    dtype = np.dtype(dtype)
    return (np.abs(values) if dtype.kind in "bu" else values).astype(dtype)


@given(seeds, st.sampled_from(["f8", "u8", "i8"]), st.sampled_from([1e19, 1e37, 1e39, 1e300]))
@examples(12)
def test_numbers_beyond_float32_are_refused_and_others_give_finite_features(seed, dtype, size):
    dtype = np.dtype(dtype)
    most = np.finfo(dtype).max if dtype.kind == "f" else float(np.iinfo(dtype).max) * 0.99
    X = (np.random.default_rng(seed).random((4, 5)) * min(size, most)).astype(dtype)
    extractor = PretrainedFeatureExtractor(ROWS)
    if X.max() > np.finfo(np.float32).max:
        with pytest.raises(ValueError, match="infinity or a value too large for dtype"), np.errstate(over="ignore"):
            extractor.fit(X)
    else:
        assert np.isfinite(extractor.fit_transform(X)).all()


@given(st.data(), tables, batch_sizes)
@examples(60)
def test_a_row_of_numbers_gives_the_same_bits_whoever_stands_beside_it(data, X, batch_size):
    extractor = PretrainedFeatureExtractor(ROWS, batch_size=batch_size).fit(X)
    features = extractor.transform(X)
    assert features.dtype == np.float32
    assert features.shape == (len(X), 16)
    assert np.isfinite(features).all()
    row = data.draw(st.integers(0, len(X) - 1))
    np.testing.assert_array_equal(extractor.transform(X[row : row + 1])[0], features[row])
    others = X[::-1].copy()
    others[row] = X[row]
    np.testing.assert_array_equal(extractor.transform(others)[row], features[row])
    order = data.draw(st.permutations(range(len(X))))
    np.testing.assert_array_equal(extractor.transform(X[order]), features[order])


@given(st.data(), tables)
@examples(40)
def test_the_memory_of_rows_of_numbers_changes_no_bit_and_is_not_changed(data, X):
    laid = data.draw(orders(X))
    plain = np.array(laid, order="C")
    about = laid.dtype, laid.strides, laid.flags.writeable
    extractor = PretrainedFeatureExtractor(ROWS)
    np.testing.assert_array_equal(extractor.fit_transform(laid), extractor.fit_transform(plain))
    np.testing.assert_array_equal(extractor.fit_transform(laid), extractor.fit_transform(plain.astype(np.float32)))
    np.testing.assert_array_equal(laid, plain)
    assert (laid.dtype, laid.strides, laid.flags.writeable) == about


@given(tables, st.sampled_from(["bsr", "coo", "csc", "csr", "dia", "dok", "lil"]))
@examples(14)
def test_sparse_rows_are_refused_in_every_format(X, form):
    X = scipy.sparse.csr_array(X.astype(np.float64)).asformat(form)
    with pytest.raises(TypeError, match="Sparse data was passed"):
        PretrainedFeatureExtractor(ROWS).fit(X)


# Labels

IMAGES = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), dtype=np.uint8)


def strings(codes):
    return np.array(["leaf", "stone", "Äpfel", ""])[codes]


def to_string_dtype(codes):
    return strings(codes).astype(np.dtypes.StringDType())


LABELS = {
    **{dtype: lambda codes, dtype=dtype: (codes * 30).astype(dtype) for dtype in (*INTEGERS, ">i4", "f2", "f4", "f8")},
    "bool": lambda codes: codes > 0,
    "negative": lambda codes: -codes * 1000,
    "large": lambda codes: codes.astype(np.uint64) + np.uint64(2**63),
    "str": strings,
    "object str": lambda codes: strings(codes).astype(object),
    "object int": lambda codes: (codes * 7).astype(object),
    "object bool": lambda codes: (codes > 0).astype(object),
    "list of str": lambda codes: strings(codes).tolist(),
    "list of np.str_": lambda codes: list(strings(codes)),
    "list of int": lambda codes: codes.tolist(),
    "list of bool": lambda codes: (codes > 0).tolist(),
    "tuple": lambda codes: tuple(codes.tolist()),
    "bytes": lambda codes: np.char.encode(strings(codes), "utf8"),
    "object bytes": lambda codes: np.char.encode(strings(codes), "utf8").astype(object),
    **({"StringDType": to_string_dtype} if hasattr(np.dtypes, "StringDType") else {}),  # NumPy 2
    "mixed": lambda codes: np.array([1, "one", 2, "two"], dtype=object)[codes],
    "column": lambda codes: codes[:, None],
    "not contiguous": lambda codes: np.repeat(codes, 2)[::2],
    "read-only": lambda codes: read_only(codes),
    "Series": lambda codes: pd.Series(codes, index=odd_index(codes)),
    "Series of object": lambda codes: pd.Series(strings(codes).astype(object)),
    "Series of str": lambda codes: pd.Series(strings(codes), dtype="str"),
    "Series of string": lambda codes: pd.Series(strings(codes), dtype="string"),
    "Series of pyarrow strings": lambda codes: pd.Series(strings(codes), dtype="string[pyarrow]"),
    "Series of Int64": lambda codes: pd.Series(codes, dtype="Int64"),
    "Series of boolean": lambda codes: pd.Series(codes > 0, dtype="boolean"),
    "Series of categories": lambda codes: pd.Series(strings(codes), dtype="category"),
    "Categorical": lambda codes: pd.Categorical(strings(codes), categories=["stone", "unused", "leaf", "Äpfel", ""]),
    "Categorical of int": lambda codes: pd.Categorical(codes),
    "Index": lambda codes: pd.Index(strings(codes)),
    "DataFrame": lambda codes: pd.DataFrame({"y": strings(codes)}),
    "tensor": lambda codes: torch.from_numpy(codes),
    "half": lambda codes: codes + 0.5,
    "dates": lambda codes: codes.astype("datetime64[D]"),
}


@st.composite
def class_indices(draw, n=16):
    n_classes = draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(seeds))
    return rng.permutation(np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, n - n_classes)]))


# Labels that stay what they are, where scikit-learn makes floats of them or refuses them.
KEPT = {"object int", "object bool", "Series of Int64", "Series of boolean", "StringDType"}


def outcome(fit):
    """What came of a fit: a model, or the type of an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return fit()
        except (TypeError, ValueError) as error:
            return type(error)


def probe(y, X=IMAGES, **parameters):
    return FineTunedClassifier(
        NETWORKS["any size"],
        **{"strategy": "linear_probe", "precision": "float32", "random_state": 0, **parameters},
    ).fit(X, y)


@pytest.mark.parametrize("kind", LABELS)
@given(codes=class_indices())
@examples(3)
def test_labels_are_taken_refused_and_given_back_as_scikit_learn_does(kind, codes):
    y = LABELS[kind](codes)
    flat = IMAGES.reshape(len(IMAGES), -1)
    expected = outcome(lambda: LogisticRegression(max_iter=3).fit(flat, y))
    classifier = outcome(lambda: probe(y))
    if isinstance(expected, type) and kind not in KEPT:
        assert isinstance(classifier, type), "taken, though scikit-learn refuses it"
        return
    assert not isinstance(classifier, type), f"refused, though scikit-learn takes it: {classifier}"
    if kind in KEPT:
        np.testing.assert_array_equal(classifier.classes_, np.unique(np.asarray(y).tolist()))
        best = classifier.predict_proba(IMAGES).argmax(axis=1)
        np.testing.assert_array_equal(classifier.predict(IMAGES), classifier.classes_[best])
        return
    np.testing.assert_array_equal(classifier.classes_, expected.classes_)
    assert classifier.classes_.dtype == expected.classes_.dtype
    assert list(map(type, classifier.classes_)) == list(map(type, expected.classes_))
    # The model does not depend on what the classes are called.
    coded = probe(np.unique(np.asarray(y).ravel(), return_inverse=True)[1])
    np.testing.assert_array_equal(classifier.predict_proba(IMAGES), coded.predict_proba(IMAGES))
    predicted = classifier.predict(IMAGES)
    np.testing.assert_array_equal(predicted, classifier.classes_[coded.predict(IMAGES)])
    assert predicted.dtype == expected.predict(flat).dtype


def test_most_kinds_of_labels_are_taken():
    codes = np.arange(16) % 4
    refused = {kind for kind in LABELS if isinstance(outcome(lambda kind=kind: probe(LABELS[kind](codes))), type)}
    # Of bytes and StringDType it depends on the version of scikit-learn and NumPy.
    refused -= {"bytes", "StringDType"}
    assert refused == {"object bytes", "mixed", "half"}


STRATEGIES = {
    "linear_probe": {},
    "lp_ft": {"freeze_depth": 2, "max_epochs": 1},
    "fine_tune": {"freeze_depth": 0, "max_epochs": 1},
    "gradual": {"freeze_depth": 0, "max_epochs": 2, "hidden_layer_sizes": (4,), "head_epochs": 1},
}


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(data=st.data(), codes=class_indices(), batch_size=st.sampled_from([1, 3, 32]))
@examples(5)
def test_probabilities_are_finite_float64_that_sum_to_1_and_follow_the_order_of_x(strategy, data, codes, batch_size):
    y = strings(codes)
    classifier = probe(y, strategy=strategy, batch_size=batch_size, **STRATEGIES[strategy])
    probabilities = classifier.predict_proba(IMAGES)
    assert probabilities.dtype == np.float64
    assert probabilities.shape == (len(IMAGES), len(classifier.classes_))
    assert np.isfinite(probabilities).all()
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(classifier.predict(IMAGES), classifier.classes_[probabilities.argmax(axis=1)])
    order = data.draw(st.permutations(range(len(IMAGES))))
    assert_close(classifier.predict_proba(IMAGES[order]), probabilities[order])
    row = data.draw(st.integers(0, len(IMAGES) - 1))
    assert_close(classifier.predict_proba(IMAGES[row : row + 1])[0], probabilities[row])
    least = np.diff(np.sort(probabilities, axis=1)[:, -2:]).ravel()
    clear = least[order] > 1e-3
    np.testing.assert_array_equal(classifier.predict(IMAGES[order])[clear], classifier.predict(IMAGES)[order][clear])


@given(st.data(), class_indices(), caches)
@examples(25)
def test_the_order_of_training_samples_does_not_change_a_linear_probe(data, codes, cache):
    order = np.array(data.draw(st.permutations(range(len(codes)))))
    y = strings(codes)
    given_order = probe(y, feature_cache=cache)
    other_order = probe(y[order], X=IMAGES[order], feature_cache=cache)
    np.testing.assert_array_equal(other_order.classes_, given_order.classes_)
    np.testing.assert_allclose(other_order.predict_proba(IMAGES), given_order.predict_proba(IMAGES), atol=1e-3)


@given(class_indices(), seeds)
@examples(15)
def test_a_sample_of_weight_2_counts_as_two_and_one_of_weight_0_not_at_all(codes, seed):
    counts = np.random.default_rng(seed).integers(0, 3, len(codes))
    counts[[int(np.flatnonzero(codes == code)[0]) for code in np.unique(codes)]] = 1
    weighted = FineTunedClassifier(NETWORKS["any size"], strategy="linear_probe", precision="float32")
    weighted.fit(IMAGES, codes, sample_weight=counts)
    repeated_rows = np.repeat(np.arange(len(codes)), counts)
    written_out = probe(codes[repeated_rows], X=IMAGES[repeated_rows])
    np.testing.assert_allclose(weighted.predict_proba(IMAGES), written_out.predict_proba(IMAGES), atol=1e-3)
