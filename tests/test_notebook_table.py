"""What a notebook shows of an estimator, and that each parameter has a tool tip: an entry of its own."""

import html
import inspect
import re

import numpy as np
import pytest
import sklearn
from networks import tiny_cnn
from packaging.version import Version
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktransfer._notebook_table import DOCUMENTATION

ALL = [PretrainedFeatureExtractor, FineTunedClassifier, FineTunedRegressor]
FIRST = {
    PretrainedFeatureExtractor: ["backbone", "weights", "layer", "pooling"],
    FineTunedClassifier: ["backbone", "freeze_depth", "lr", "max_epochs"],
    FineTunedRegressor: ["backbone", "freeze_depth", "lr", "max_epochs"],
}
installed = Version(sklearn.__version__)
has_table = pytest.mark.skipif(installed < Version("1.7"), reason="scikit-learn 1.7 brought the table")
has_tips = pytest.mark.skipif(installed < Version("1.8"), reason="scikit-learn 1.8 brought the tool tips")
has_attributes = pytest.mark.skipif(installed < Version("1.9"), reason="scikit-learn 1.9 brought the fitted attributes")


class OneOfTheirs(FineTunedClassifier):
    pass


OneOfTheirs.__module__ = "their_package"


def entries(estimator_class, section):
    """Names that have an entry of their own in a section of the docstring, as numpydoc reads it."""
    text = inspect.cleandoc(estimator_class.__doc__)
    within = re.split(r"\n\n(?=[A-Z][^\n]*\n---)", text.split(f"{section}\n{'-' * len(section)}\n")[1])[0]
    return [line.split(" : ")[0] for line in within.splitlines() if line and not line.startswith(" ")]


def tables(estimator):
    """Return the rows of each table of parameters, by its heading, and which of them are open."""
    shown = estimator._repr_html_()
    found, opened = {}, {}
    for attributes, heading, body in re.findall(
        r"<details([^>]*)>\s*<summary>([^<]*)</summary>(.*?)</details>", shown, re.DOTALL
    ):
        found[heading] = re.findall(r'aria-label="Copy (\w+) to clipboard"', body)
        opened[heading] = "open" in attributes
    return found, opened


@pytest.mark.parametrize("estimator_class", ALL)
def test_each_parameter_has_an_entry_of_its_own_in_the_docstring(estimator_class):
    parameters = list(inspect.signature(estimator_class).parameters)
    assert entries(estimator_class, "Parameters") == parameters
    attributes = entries(estimator_class, "Attributes")
    assert all(name.endswith("_") for name in attributes)
    assert len(set(attributes)) == len(attributes)


@pytest.mark.parametrize("estimator_class", ALL)
def test_the_question_mark_leads_to_the_page_of_the_estimator(estimator_class):
    page = f"{DOCUMENTATION}/generated/sktransfer.{estimator_class.__name__}.html"
    assert estimator_class()._get_doc_link() == page
    assert f'href="{page}"' in estimator_class()._repr_html_()
    assert f'href="{page}"' in make_pipeline(estimator_class())._repr_html_()


def test_a_class_of_another_package_has_no_page_of_ours():
    assert OneOfTheirs()._get_doc_link() == ""
    assert DOCUMENTATION not in OneOfTheirs()._repr_html_()


@has_table
@pytest.mark.parametrize("estimator_class", ALL)
def test_the_four_parameters_that_matter_stand_open_and_the_others_folded(estimator_class):
    names = list(inspect.signature(estimator_class).parameters)
    found, opened = tables(estimator_class())
    rest = f"{len(names) - 4} more parameters"
    assert list(found) == ["Parameters", rest]
    assert found["Parameters"] == FIRST[estimator_class]
    assert found[rest] == [name for name in names if name not in FIRST[estimator_class]]
    assert opened == {"Parameters": True, rest: False}


@has_table
def test_what_was_set_by_hand_stands_open_too():
    found, _ = tables(FineTunedClassifier("vgg16", dropout=0.5, freeze_depth=-2))
    assert found["Parameters"] == [*FIRST[FineTunedClassifier], "dropout"]
    folded = len(FineTunedClassifier().get_params()) - 5
    assert len(found[f"{folded} more parameters"]) == folded


@has_table
def test_it_is_the_same_inside_a_pipeline():
    found, opened = tables(make_pipeline(PretrainedFeatureExtractor(), LogisticRegression()))
    folded = f"{len(PretrainedFeatureExtractor().get_params()) - 4} more parameters"
    assert found[folded]
    assert not opened[folded]


@has_tips
@pytest.mark.parametrize("estimator_class", ALL)
def test_each_parameter_has_a_tool_tip(estimator_class):
    tips = re.findall(
        r'<span class="param-doc-description"[^>]*>\s*(.*?)</span>', estimator_class()._repr_html_(), re.S
    )
    told = [html.unescape(tip).partition(": ")[0] for tip in tips]
    assert sorted(told) == sorted(inspect.signature(estimator_class).parameters)


@has_attributes
@pytest.mark.parametrize(
    "estimator", [PretrainedFeatureExtractor(tiny_cnn), FineTunedClassifier(tiny_cnn), FineTunedRegressor(tiny_cnn)]
)
def test_what_was_learned_is_shown_short(estimator, pictures):
    X, _ = pictures
    shown = estimator.fit(X, np.arange(len(X)) % 2)._repr_html_()
    rows = re.findall(r'class="fitted-att-type">.*?</td>\s*<td>(.*?)</td>', shown, re.DOTALL)
    assert "tiny_cnn, 4 blocks" in rows
    assert max(map(len, rows)) < 200
    assert "0x" not in "".join(rows)
    assert len(rows) >= 3


@has_table
def test_the_parameters_themselves_are_still_there_for_whoever_asks():
    table = FineTunedClassifier(lr=0.5)._get_params_html()
    assert dict(table) == FineTunedClassifier(lr=0.5).get_params()
    assert table.non_default == ("lr",)
