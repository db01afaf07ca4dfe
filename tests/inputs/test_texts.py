"""What a text may be, what becomes of it, and what is refused by its row."""

import dataclasses
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image
from pretrained_models import make_text_model, make_texts
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.inputs._texts import TextReader

TEXTS = ["the film is good", "bad", "a long and dull story but not very bad"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return make_text_model("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return make_text_model("gpt2", tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def fitted(bert):
    return PretrainedFeatureExtractor(bert, precision="float32").fit(TEXTS)


FORMS = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "object array": lambda X: np.array(X, dtype=object),
    "column": lambda X: np.array(X, dtype=object)[:, None],
    "Series": pd.Series,
    "Series of strings": lambda X: pd.Series(X, dtype="string"),
    "Series with an index": lambda X: pd.Series(X, index=[7, 3, 5]),
    "categorical Series": lambda X: pd.Series(X, dtype="category"),
    "DataFrame": lambda X: pd.DataFrame({"text": X}),
    "polars Series": pl.Series,
    "polars DataFrame": lambda X: pl.DataFrame({"text": X}),
    "bytes": lambda X: [text.encode() for text in X],
    "numpy strings": lambda X: [np.str_(text) for text in X],
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_texts_come_in_any_form(form, bert, fitted):
    expected = fitted.transform(TEXTS)
    found = PretrainedFeatureExtractor(bert, precision="float32").fit_transform(form(TEXTS))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_names_of_a_column_are_remembered(bert):
    model = PretrainedFeatureExtractor(bert).fit(pd.DataFrame({"text": TEXTS}))
    assert model.feature_names_in_.tolist() == ["text"]
    with pytest.raises(ValueError, match="feature names should match"):
        model.transform(pd.DataFrame({"words": TEXTS}))


def test_results_come_in_the_order_given_though_lengths_are_computed_together(bert):
    X, _ = make_texts(60)
    model = PretrainedFeatureExtractor(bert, precision="float32", feature_cache=None, batch_size=4).fit(X)
    together = model.transform(X)
    assert len({len(text.split()) for text in X}) > 5
    for row in range(0, 60, 7):
        np.testing.assert_array_equal(model.transform([X[row]])[0].round(5), together[row].round(5))


def test_no_padding_is_computed(bert, monkeypatch):
    """Each batch that enters the frozen network holds texts of one length."""
    from sktransfer._computing import _forward

    seen = []
    real = _forward._forward
    monkeypatch.setattr(
        _forward, "_forward", lambda network, batch, full: seen.append(batch) or real(network, batch, full)
    )
    X, _ = make_texts(60)
    PretrainedFeatureExtractor(bert, feature_cache=None).fit_transform(X)
    tokens = sum(batch.numel() for batch in seen)
    wanted = sum(len(text.split()) + 2 for text in [X[0], *X])  # fit looks at the first
    assert tokens == wanted
    assert max(len(batch) for batch in seen) > 3


def test_what_follows_max_length_is_cut_off(bert, fitted):
    long = "good " * 50
    model = PretrainedFeatureExtractor(bert, precision="float32", max_length=6).fit([long])
    np.testing.assert_array_equal(model.transform([long]), model.transform(["good good good good"]))
    np.testing.assert_array_equal(fitted.transform([long]), fitted.transform(["good " * 18]))
    assert not np.allclose(fitted.transform([long]), model.transform([long]))


def test_more_than_the_network_was_made_for_is_refused(bert):
    with pytest.raises(ValueError, match=r"Got max_length=21; expected .* at most 20, which this network"):
        PretrainedFeatureExtractor(bert, max_length=21).fit(TEXTS)


@pytest.mark.parametrize("max_length", [1, 2])
def test_a_length_that_leaves_no_token_of_the_text_is_refused(max_length, bert):
    """The tokenizer would not cut off at all."""
    with pytest.raises(ValueError, match=rf"Got max_length={max_length}, .* 2 of them special .* expected at least 3"):
        PretrainedFeatureExtractor(bert, max_length=max_length).fit(TEXTS)


@pytest.mark.parametrize("max_length", [True, False, np.True_, 0, -3, 4.0, "4", 10**30])
def test_a_length_that_is_no_number_of_tokens_is_refused(max_length, bert, fitted):
    with pytest.raises(ValueError, match="max_length") as caught:
        PretrainedFeatureExtractor(bert, max_length=max_length).fit(TEXTS)
    assert len(str(caught.value)) < 600
    with pytest.raises(ValueError, match=r"Got max_length=.*; expected a number of tokens of at most 20"):
        TextReader(fitted.backbone_.preprocessing, max_length)


@pytest.mark.parametrize("max_length", [3, np.int32(3), np.uint8(3)])
def test_a_length_that_leaves_one_token_of_the_text_is_taken(max_length, bert):
    model = PretrainedFeatureExtractor(bert, max_length=max_length, precision="float32").fit(TEXTS)
    np.testing.assert_array_equal(model.transform(["good " * 50]), model.transform(["good"]))


def test_a_prompt_counts_among_the_tokens(fitted):
    known = dataclasses.replace(fitted.backbone_.preprocessing, prompt="the film : ")
    assert known.prompt_tokens == 4  # a mark, and the colon that the tokenizer does not know
    with pytest.raises(ValueError, match=r"Got max_length=5, .* 5 of them special ones or of the prompt; .* least 6"):
        TextReader(known, 5).read(["good"])
    samples = TextReader(known, 6).read(["good", "bad bad bad"])
    assert [samples.size(row) for row in range(2)] == [6, 6]
    assert TextReader.from_record(TextReader(known, 6).record).preprocessing == known


def test_a_text_of_a_megabyte_is_read_as_any_other(fitted):
    huge = "good bad " * 120_000
    assert len(huge) > 10**6
    np.testing.assert_array_equal(fitted.transform([huge, "bad"])[0], fitted.transform(["good bad " * 9])[0])


def test_the_cache_knows_texts_by_their_tokens(bert):
    """Not by their position, nor by what the tokenizer does not see."""
    import sktransfer

    model = PretrainedFeatureExtractor(bert).fit(TEXTS)
    model.transform(TEXTS)
    before = sktransfer.cache_info()
    model.transform([text.upper() + "  " for text in reversed(TEXTS)])
    after = sktransfer.cache_info()
    assert after.hits - before.hits == 3
    assert after.misses == before.misses


# What is refused

NOT_TEXTS = {
    "None": None,
    "NaN": np.nan,
    "NA": pd.NA,
    "NaT": pd.NaT,
    "a number": 3,
    "a list": ["good"],
    "a dict": {"text": "good"},
    "an array": np.zeros(3),
    "bytes that are not valid UTF-8": b"caf\xe9",
    "half a character": "caf\udce9",
}


@pytest.mark.parametrize("wrong", NOT_TEXTS.values(), ids=NOT_TEXTS)
@pytest.mark.parametrize("estimator_class", [PretrainedFeatureExtractor, FineTunedClassifier])
def test_what_is_no_text_is_refused_by_its_row(estimator_class, wrong, bert, fitted):
    X = np.empty(4, dtype=object)
    X[:] = [*TEXTS, wrong]
    estimator = estimator_class(bert)
    with pytest.raises(ValueError, match=r"^Got X\[3\] = .*; expected (a string|text)\. ") as caught:
        estimator.fit(X, [0, 1, 0, 1])
    with pytest.raises(NotFittedError):
        check_is_fitted(estimator)
    with pytest.raises(ValueError, match=r"^Got X\[3\]"):
        fitted.transform(list(X))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("wrong", NOT_TEXTS.values(), ids=NOT_TEXTS)
def test_what_is_no_text_may_become_a_row_of_nan(wrong, bert):
    model = PretrainedFeatureExtractor(bert, on_bad_sample="nan", feature_cache=None).fit(TEXTS)
    with pytest.warns(UserWarning, match=r"1 of 4 samples could not be read; their rows are NaN.*X\[1\]"):
        features = model.transform([TEXTS[0], wrong, *TEXTS[1:]])
    assert np.isnan(features[1]).all()
    np.testing.assert_allclose(features[[0, 2, 3]], model.transform(TEXTS), atol=1e-5)


def test_several_rows_without_text_are_counted(bert):
    with pytest.raises(ValueError, match=re.escape("X[1] = None") + r".*\(2 rows are not texts\.\)"):
        PretrainedFeatureExtractor(bert).fit(["good", None, "bad", None])


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_an_empty_text_is_a_text_where_marks_stand_around_it(text, fitted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(fitted.transform([text, "good"])).all()


@pytest.mark.parametrize("text", ["", "   "])
def test_a_text_without_tokens_is_refused(text, gpt2):
    with pytest.raises(ValueError, match=r"^Got X\[1\] = .*tokenizer finds no tokens in it; expected text"):
        PretrainedFeatureExtractor(gpt2).fit(["good", text])
    model = PretrainedFeatureExtractor(gpt2, on_bad_sample="nan").fit(["good"])
    with pytest.warns(UserWarning, match="1 of 2 samples"):
        assert np.isnan(model.transform(["good", text])[1]).all()


@pytest.mark.parametrize("text", ["日本語のテキスト", "🎬🎬", "ñandú", "\x00", "a\u200bb", "‮", "<s>[SEP][CLS]"])
def test_texts_of_any_script_are_taken(text, fitted):
    assert np.isfinite(fitted.transform([text])).all()


def test_a_single_text_is_refused(bert):
    with pytest.raises(ValueError, match=r"Got X='good'; expected several samples.*into a list"):
        PretrainedFeatureExtractor(bert).fit("good")


@pytest.mark.parametrize(
    ("X", "match"),
    [
        (
            np.zeros((3, 4)),
            r"Got X with 4 columns of numbers, but backbone=.* takes texts\. Give one column of strings",
        ),
        (np.zeros((3, 4, 4)), r"Got X of shape \(3, 4, 4\) and type float64; expected texts"),
        (np.array([["a", "b"], ["c", "d"]]), r"Got X of 2 columns that are not all numbers; expected one column"),
        (pd.DataFrame({"a": TEXTS, "b": TEXTS}), r"Got X of 2 columns that are not all numbers.*ColumnTransformer"),
        ([], "X is empty"),
    ],
    ids=["numbers", "pictures", "two columns", "two columns of a DataFrame", "nothing"],
)
def test_an_x_that_holds_no_texts_is_refused(X, match, bert):
    with pytest.raises(ValueError, match=match):
        PretrainedFeatureExtractor(bert).fit(X)


@pytest.mark.parametrize("form", [list, lambda X: [Image.fromarray(one) for one in X]], ids=["arrays", "pictures"])
def test_pictures_for_a_network_of_texts_ask_for_another_backbone(form, bert):
    X = form(np.zeros((3, 8, 9, 3), dtype=np.uint8))
    with pytest.raises(
        ValueError, match=r"^Got X\[0\] = .* of shape \(8, 9, 3\); .* takes texts; for pictures, take a"
    ):
        PretrainedFeatureExtractor(bert).fit(X)
    with pytest.raises(ValueError, match=r"expected texts: .* For pictures, take a backbone for pictures\."):
        PretrainedFeatureExtractor(bert).fit(np.zeros((3, 8, 9, 3), dtype=np.uint8))


@pytest.mark.parametrize(("ending", "kind"), [("png", "pictures"), ("jpg", "pictures"), ("wav", "sounds")])
def test_paths_of_files_are_not_read_as_texts(ending, kind, bert, fitted, tmp_path):
    files = [str(tmp_path / f"a film {number}.{ending}") for number in range(3)]
    for file in files:
        Path(file).touch()
    with pytest.raises(ValueError, match=rf"^Got X\[0\] = .*the path of a file.*not {kind}; .*a backbone for {kind}\."):
        PretrainedFeatureExtractor(bert).fit(files)
    with pytest.raises(ValueError, match="the path of a file"):
        fitted.transform(files)


def test_texts_that_only_look_like_paths_are_texts(fitted):
    assert np.isfinite(fitted.transform(["film.png", "a/b.wav", "story.txt"])).all()


def test_numbers_after_a_fit_on_texts_are_refused(fitted):
    with pytest.raises(ValueError, match="Got X that holds vectors; expected texts, as in fit"):
        fitted.transform(np.zeros((3, 4)))


def test_texts_cannot_be_augmented(bert):
    with pytest.raises(ValueError, match="Got augment='light' for X that holds texts; expected None"):
        FineTunedClassifier(bert, augment="light").fit(TEXTS, [0, 1, 0])


def test_flattening_needs_texts_of_one_length(bert):
    with pytest.raises(ValueError, match="flatten"):
        PretrainedFeatureExtractor(bert, pooling="flatten").fit(TEXTS).transform(TEXTS)
