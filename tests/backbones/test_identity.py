"""Networks that compute something else are never taken for one another, and those that are the same always are."""

import collections
import copy
import dataclasses
import decimal
import enum
import functools
import itertools
import os
import pickle
import random
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import rest_exhaustive, tiny_cnn
from pretrained_models import make_sound_model, make_text_model
from sklearn.model_selection import GridSearchCV
from torch import fx, nn
from torch.nn import functional
from torch.nn.utils import parametrize

import sktransfer
from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor, cache_info, clear_cache
from sktransfer.backbones import ImagePreprocessing, list_backbones, load_backbone
from sktransfer.backbones._code import NotWritableError
from sktransfer.backbones._writing import Writer

X = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def nothing_kept():
    clear_cache()
    yield
    clear_cache()


class Setting(nn.Module):
    """Computes with whatever it was given."""

    def __init__(self, setting):
        super().__init__()
        self.setting = setting

    def forward(self, x):
        setting = self.setting
        while isinstance(setting, list | dict | tuple):
            setting = setting[0]
        if isinstance(setting, set | frozenset):
            setting = sum(setting)
        if isinstance(setting, torch.dtype):
            return x.to(setting).float()
        if isinstance(setting, np.ndarray | torch.Tensor):
            setting = float(setting.sum())
        if isinstance(setting, str):
            return x * len(setting)
        if isinstance(setting, re.Pattern):
            return x * len(setting.pattern)
        if isinstance(setting, slice):
            return x[..., setting].mean(-1, keepdim=True) * torch.ones_like(x)
        if isinstance(setting, enum.Enum | types.SimpleNamespace):
            setting = setting.value
        return setting(x) if callable(setting) else x * float(setting)


def run(source, name="Cell", **names):
    """Run a cell of a notebook; return an object of the class, or the function, that it defines."""
    space = {"nn": nn, "torch": torch, "__name__": "__main__", **names}
    exec(source, space)
    made = space[name]
    return made() if isinstance(made, type) else Setting(made)


def cell(body, before="", base="nn.Module", inside=""):
    return run(f"{before}\nclass Cell({base}):\n    {inside or 'pass'}\n    def forward(self, x):\n        {body}\n")


class Call:
    """An object that can be called."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return x * self.factor

    def method(self, x):
        return x * self.factor


class Slots:
    __slots__ = ("__factor",)

    def __init__(self, factor):
        self.__factor = factor

    def __call__(self, x):
        return x * self.__factor


@dataclasses.dataclass(frozen=True)
class Data:
    factor: float

    def __call__(self, x):
        return x * self.factor


class Mode(enum.Enum):
    ONE = 1
    THREE = 3


class Scaled(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, weight):
        return weight * self.factor


def closed_over(factor):
    inner = lambda x: x * factor  # noqa: E731
    return lambda x: inner(x)


def with_default(factor):
    def function(x, factor=factor):
        return x * factor

    return function


def with_keyword(factor):
    def function(x, *, factor=factor):
        return x * factor

    return function


def with_attribute(factor):
    def function(x):
        return x * function.factor

    function.factor = factor
    return function


def buffered(factor):
    layer = cell("return x * self.factor")
    layer.register_buffer("factor", torch.tensor(float(factor)), persistent=False)
    return layer


def hooked(factor, before=False):
    layer = nn.Identity()
    if before:
        layer.register_forward_pre_hook(lambda module, args: (args[0] * factor,))
    else:
        layer.register_forward_hook(lambda module, args, result: result * factor)
    return layer


def patched(factor):
    layer = nn.Identity()
    layer.forward = lambda x: x * factor
    return layer


def marked(factor):
    layer = Setting(lambda x: x * 1)
    layer.table = torch.zeros(2)
    layer.table.factor = factor
    layer.setting = functools.partial(lambda table, x: x * table.factor, layer.table)
    return layer


def long_array(factor):
    array = np.zeros(5000)  # prints alike
    array[2500] = factor
    return array


def hidden_module(factor):
    return Setting([Scaled(factor)])


def parametrized(factor):
    layer = nn.Conv2d(4, 4, 1)
    torch.nn.init.ones_(layer.weight)
    torch.nn.init.ones_(layer.bias)
    parametrize.register_parametrization(layer, "weight", Scaled(factor))
    return layer


def wrapped(factor):
    """A function that a trace does not look into, of a name that others have too."""

    def stay(x):
        return x * factor

    class Root(nn.Module):
        def forward(self, x):
            return stay(x)

    root = Root()
    tracer = fx.Tracer(autowrap_functions=(stay,))
    return root, tracer


EDITS = {
    "forward": lambda f: cell(f"return x * {f}"),
    "another operation": lambda f: cell("return torch.sin(x)" if f == 1 else "return torch.cos(x)"),
    "method": lambda f: cell("return self.scale(x)", inside=f"def scale(self, x): return x * {f}"),
    "property": lambda f: cell("return x * self.factor", inside=f"factor = property(lambda self: {f})"),
    "static method": lambda f: cell("return self.g(x)", inside=f"g = staticmethod(lambda x: x * {f})"),
    "class method": lambda f: cell("return self.g(x)", inside=f"g = classmethod(lambda kind, x: x * {f})"),
    "class attribute": lambda f: cell("return x * self.factor", inside=f"factor = [{f}.0][0]"),
    "default": lambda f: run(f"class Cell(nn.Module):\n    def forward(self, x, factor={f}): return x * factor"),
    "constant of the module": lambda f: cell("return x * FACTOR", before=f"FACTOR = {f}"),
    "dict of the module": lambda f: cell("return x * FACTORS['a']['b']", before=f"FACTORS = dict(a=dict(b={f}))"),
    "helper": lambda f: cell("return g(x)", before=f"def g(x): return x * {f}"),
    "helper's helper": lambda f: cell("return g(x)", before=f"def h(x): return x * {f}\ndef g(x): return h(x)"),
    "helper's class": lambda f: cell(
        "return G()(x)",
        before=f"class G:\n    def __init__(self): self.f = {f}\n    def __call__(self, x): return x * self.f",
    ),
    "inner function": lambda f: cell(f"return (lambda y: (lambda: y * {f})())(x)"),
    "comprehension": lambda f: cell("return sum([x * FACTOR for _ in range(2)])", before=f"FACTOR = {f}"),
    "base class": lambda f: cell(
        "return super().forward(x)", "class Base(nn.Module):\n    def forward(self, x): return x * " + str(f), "Base"
    ),
    "own module": lambda f: cell("return helpers.scale(x)", before=_own_module(f)),
    "import in a function": lambda f: cell("import helpers; return helpers.scale(x)", before=_own_module(f)),
    "decorated": lambda f: cell(f"return x * {f}", inside="pass\n    @torch.no_grad()"),
    "autograd function": lambda f: cell(
        "return F.apply(x)",
        before=f"class F(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x): return x * {f}",
    ),
    "recursion": lambda f: cell("return g(x, 2)", before=f"def g(x, n): return x * {f} if n == 0 else g(x, n - 1)"),
}


def _own_module(factor):
    """Return what finds a module of a person's own, edited between two runs."""
    return (
        "import sys, types\nhelpers = types.ModuleType('helpers')\n"
        f"exec('FACTOR = {factor}\\ndef scale(x): return x * FACTOR', vars(helpers))\nsys.modules['helpers'] = helpers"
    )


SETTINGS = {
    "float": lambda f: Setting(float(f)),
    "int": lambda f: Setting(f),
    "the last bit": lambda f: Setting(1.0 if f == 1 else 1.0 + 2**-20),
    "list": lambda f: Setting([f]),
    "dict": lambda f: Setting({0: f}),
    "nested": lambda f: Setting([{0: ([f],)}]),
    "named tuple": lambda f: Setting(collections.namedtuple("Pair", "a b")(f, 2)),
    "ordered dict": lambda f: Setting(collections.OrderedDict({0: f})),
    "set": lambda f: Setting({f, 10}),
    "tensor": lambda f: Setting(torch.tensor(float(f))),
    "bfloat16": lambda f: Setting(torch.tensor([f], dtype=torch.bfloat16)),
    "strided": lambda f: Setting(torch.tensor([[f, 0.0], [1.0, 1.0]]).T),
    "list of tensors": lambda f: Setting([torch.tensor(f)]),
    "array": lambda f: Setting(np.array([f])),
    "long array": lambda f: Setting(long_array(f)),
    "numpy scalar": lambda f: Setting(np.float32(f)),
    "string": lambda f: Setting("a" * f),
    "pattern": lambda f: Setting(re.compile("a" * f)),
    "slice": lambda f: Setting(slice(0, f)),
    "decimal": lambda f: Setting(decimal.Decimal(f)),
    "dtype": lambda f: Setting(torch.float16 if f == 1 else torch.int32),
    "enum": lambda f: Setting(Mode(f)),
    "namespace": lambda f: Setting(types.SimpleNamespace(value=f)),
    "function of torch": lambda f: Setting(torch.sin if f == 1 else torch.cos),
    "functional": lambda f: Setting(functional.silu if f == 1 else functional.gelu),
    "method of tensors": lambda f: Setting(torch.Tensor.sin if f == 1 else torch.Tensor.cos),
    "operator": lambda f: Setting(torch.ops.aten.sin.default if f == 1 else torch.ops.aten.cos.default),
    "partial": lambda f: Setting(functools.partial(torch.add, other=f)),
    "partial of one's own": lambda f: Setting(functools.partial(closed_over(f))),
    "lambda": lambda f: Setting((lambda x: x) if f == 1 else (lambda x: 3 * x)),
    "closure": lambda f: Setting(closed_over(f)),
    "default": lambda f: Setting(with_default(f)),
    "keyword default": lambda f: Setting(with_keyword(f)),
    "attribute of a function": lambda f: Setting(with_attribute(f)),
    "callable object": lambda f: Setting(Call(f)),
    "bound method": lambda f: Setting(Call(f).method),
    "slots": lambda f: Setting(Slots(f)),
    "data class": lambda f: Setting(Data(f)),
    "buffer that is not saved": buffered,
    "hook": hooked,
    "hook before": lambda f: hooked(f, before=True),
    "patched forward": patched,
    "mark of a tensor": marked,
    "module in a list": hidden_module,
    "parametrization": parametrized,
}
PAIRS = {**{f"setting: {name}": make for name, make in SETTINGS.items()}, **{f"edit: {n}": e for n, e in EDITS.items()}}


def network(layer):
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)
    return nn.Sequential(first, layer, second, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def features(layer, cache):
    return PretrainedFeatureExtractor(network(layer), feature_cache=cache, precision="float32").fit_transform(X)


def directly(layer):
    """What a network's own code makes of the pictures."""
    with torch.no_grad():
        return network(layer).eval()(torch.from_numpy(X).permute(0, 3, 1, 2) / 255).numpy()


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("where", rest_exhaustive(["memory", "folder", "none"], "memory"))
def test_what_was_kept_of_one_network_is_never_given_for_another(pair, where, tmp_path):
    make = PAIRS[pair]
    cache = {"memory": "auto", "folder": tmp_path, "none": None}[where]
    kept = features(make(1), cache)
    np.testing.assert_allclose(kept, directly(make(1)), rtol=1e-4, atol=1e-5)
    got = features(make(3), cache)
    np.testing.assert_allclose(got, directly(make(3)), rtol=1e-4, atol=1e-5)
    assert not np.array_equal(got, kept)


@pytest.mark.exhaustive
@pytest.mark.parametrize("pair", PAIRS)
def test_the_same_network_is_known_again(pair):
    identities = []
    for factor in (1, 1, 3):  # one after another: what a function imports when it runs is the last that was made
        loaded = load_backbone(network(PAIRS[pair](factor)))._loaded
        assert loaded.identity is not None, loaded.why_no_identity
        identities.append(loaded.identity)
    assert identities[0] == identities[1] != identities[2]
    features(PAIRS[pair](1), "auto")
    before = cache_info().misses
    features(PAIRS[pair](1), "auto")
    assert cache_info().misses == before


def reads_a_file(x):
    with open(os.devnull) as file:  # noqa: PTH123
        return x * (1 + len(file.read()))


def asks_the_environment(x):
    return x * float(os.environ.get("FACTOR", "1"))


def holds_itself():
    circle = []
    circle.append(circle)
    return circle


HIDDEN = {
    "generator of numpy": lambda: np.random.default_rng(0),
    "generator of python": lambda: random.Random(0),
    "iterator": lambda: iter([1, 2]),
    "counter": lambda: itertools.repeat(1),
    "a file": lambda: reads_a_file,
    "the environment": lambda: asks_the_environment,
    "evaluated": lambda: lambda x: eval("x * 1"),
    "a list that holds itself": holds_itself,
    "ufunc of one's own": lambda: np.frompyfunc(abs, 1, 1),
    "set of objects": lambda: {Call(1), Call(2)},
}


def idle(setting):
    layer = cell("return x * 2.0")
    layer.setting = setting
    return layer


@pytest.mark.parametrize("hidden", HIDDEN)
def test_a_network_that_cannot_be_written_down_is_neither_kept_nor_shared(hidden):
    one, same = (load_backbone(network(idle(HIDDEN[hidden]()))) for _ in range(2))
    assert one._loaded.identity is None
    assert one._loaded.why_no_identity.startswith("1.setting")
    assert one.network is not same.network
    assert cache_info().n_networks == 0
    extractor = PretrainedFeatureExtractor(network(idle(HIDDEN[hidden]())), precision="float32")
    expected = directly(idle(None))
    for _ in range(2):
        np.testing.assert_allclose(extractor.fit_transform(X), expected, rtol=1e-4, atol=1e-5)
    assert (cache_info().hits, cache_info().n_activations) == (0, 0)


def test_verbose_says_why_nothing_goes_into_the_cache(capsys):
    FineTunedClassifier(network(idle(iter([1]))), head_epochs=1, verbose=1).fit(X, [0, 1, 0, 1])
    said = capsys.readouterr().out
    assert said.count("blocks are not cached: 1.setting holds a builtins.list_iterator, which cannot") == 1


def test_a_function_that_is_not_traced_is_told_by_its_code():
    from sktransfer.backbones._identity import describe_operations

    texts = []
    for factor in (1, 1, 3):
        root, tracer = wrapped(factor)
        texts.append(describe_operations(root, tracer.trace(root).nodes).text)
    assert texts[0] == texts[1] != texts[2]


def test_three_networks_in_a_grid_get_three_scores():
    networks = [network(Setting([factor])) for factor in (1.0, 2.0, 3.0)]
    search = GridSearchCV(
        PretrainedFeatureExtractor(precision="float32"),
        {"backbone": networks},
        scoring=lambda fitted, X, y=None: float(fitted.transform(X).sum()),
        cv=2,
        refit=False,
    ).fit(X)
    expected = [directly(Setting([factor])).sum() / 2 for factor in (1.0, 2.0, 3.0)]
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], expected, rtol=1e-4)
    assert len(set(search.cv_results_["mean_test_score"])) == 3


def test_a_method_that_somebody_put_into_a_class_of_torch_counts(monkeypatch):
    before = load_backbone(network(nn.ReLU()))._loaded.identity
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: x * 2)
    assert load_backbone(network(nn.ReLU()))._loaded.identity not in (before, None)


def test_an_edit_that_changes_nothing_keeps_the_identity():
    one, same = (
        load_backbone(
            network(run(f"{lines}class Cell(nn.Module):\n    def forward(self, x):\n        return x * 2  # {note}\n"))
        )
        for lines, note in (("", "once"), ("\n\n\n", "twice"))
    )
    assert one._loaded.identity == same._loaded.identity
    assert one.network is not same.network, "pickle knows the class of the last run alone"


def test_how_an_object_is_made_or_printed_does_not_count():
    one, same = (
        load_backbone(network(cell("return x * 2.0", inside=f"def extra_repr(self): return open({name!r}).read()")))
        for name in "ab"
    )
    assert one._loaded.identity == same._loaded.identity is not None


def test_tied_weights_are_not_those_that_are_merely_equal():
    tied, equal = (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)) for _ in range(2))
    for one in (tied, equal):
        nn.init.ones_(one[0].weight)
        nn.init.ones_(one[2].weight)
        nn.init.zeros_(one[0].bias)
        nn.init.zeros_(one[2].bias)
    tied[2].weight = tied[0].weight
    assert load_backbone(tied).network is not load_backbone(equal).network


# A network that somebody changes after it was loaded


def _factor(network):
    network[1].setting = 3.0


def _in_list(network):
    network[2].setting[0] = 3.0


def _in_tensor(network):
    network[3].setting.mul_(3.0)


def _layer(network):
    network[1] = Setting(3.0)


def _hook(network):
    network[1].register_forward_hook(lambda module, args, result: result * 3)


def _helper(network):
    network[4].forward.__globals__["FACTOR"] = 3


def _class(network):
    type(network[4]).forward = lambda self, x: x * 3


def _nested(network):
    network[5].setting[0][0] = 3.0


def _object(network):
    network[6].setting.factor = 3.0


CHANGES = [_factor, _in_list, _in_tensor, _layer, _hook, _helper, _class, _nested, _object]


@pytest.mark.parametrize("where", ["memory", "folder", "none"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_in_the_fitted_network_counts(change, where, tmp_path):
    torch.manual_seed(0)
    layers = [Setting(1.0), Setting([1.0]), Setting(torch.tensor(1.0)), cell("return x * FACTOR", "FACTOR = 1")]
    layers += [Setting([[1.0]]), Setting(Call(1.0))]
    made = nn.Sequential(nn.Conv2d(3, 4, 3), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    cache = {"memory": "auto", "folder": tmp_path, "none": None}[where]
    extractor = PretrainedFeatureExtractor(made, precision="float32", feature_cache=cache).fit(X)
    before = extractor.transform(X)
    change(extractor.backbone_.network)
    np.testing.assert_allclose(extractor.transform(X), 3 * before, rtol=1e-4)
    clear_cache()
    np.testing.assert_allclose(extractor.transform(X), 3 * before, rtol=1e-4)
    again = PretrainedFeatureExtractor(made, precision="float32", feature_cache=cache).fit(X)
    everywhere = change in (_helper, _class)  # code is not copied with a network
    np.testing.assert_allclose(again.transform(X), (3 if everywhere else 1) * before, rtol=1e-4)


# Networks of libraries have an identity, and always the same


SMALL = [
    "densenet121",
    "efficientnet_b0",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
]
TIMMS = ["resnet10t", "vit_tiny_patch16_224", "levit_128s", "convnext_atto", "ghostnet_050"]
TRANSFORMERS = ["bert", "distilbert", "modernbert", "gpt2", "llama", "whisper", "wav2vec2"]


def identity_twice(name, **how):
    one = load_backbone(name, **how)._loaded
    clear_cache()
    two = load_backbone(name, **how)._loaded
    assert one is not two
    assert one.identity is not None, one.why_no_identity
    assert one.identity == two.identity
    return one.identity


@pytest.mark.parametrize("name", rest_exhaustive(SMALL, "squeezenet1_1"))
def test_networks_of_torchvision_are_known_again(name):
    identity_twice(name, weights=None)


@pytest.mark.all_backbones
@pytest.mark.parametrize("name", list_backbones())
def test_every_network_of_torchvision_is_known_again(name):
    identity_twice(name, weights=None)


@pytest.mark.parametrize("name", rest_exhaustive(TIMMS, "resnet10t"))
def test_networks_of_timm_are_known_again(name):
    pytest.importorskip("timm", reason="timm is not installed")
    identity_twice(f"timm:{name}", weights=None)


@pytest.mark.parametrize("kind", rest_exhaustive(TRANSFORMERS, "bert", "wav2vec2"))
def test_networks_of_transformers_are_known_again_also_from_a_file(kind, tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    make = make_sound_model if kind in ("whisper", "wav2vec2") else make_text_model
    name = make(kind, tmp_path / "model")
    identity = identity_twice(name)
    backbone = load_backbone(name)
    clear_cache()
    assert pickle.loads(pickle.dumps(backbone))._loaded.identity == identity
    (tmp_path / "model").rename(tmp_path / "moved")
    clear_cache()
    assert load_backbone(f"hf:{tmp_path / 'moved'}")._loaded.identity == identity


def test_a_copy_and_a_pickle_have_the_same_identity():
    backbone = load_backbone(network(Setting([1.0, {"a": torch.ones(2)}])))
    identity = backbone._loaded.identity
    clear_cache()
    assert load_backbone(copy.deepcopy(backbone.network))._loaded.identity == identity
    clear_cache()
    assert pickle.loads(pickle.dumps(backbone))._loaded.identity == identity


LAYERS = """
import enum, functools, math
import torch
from torch import nn
from torch.nn import functional as F

CHOICES = {"a", "b", "c", "d"}

class Kind(enum.Enum):
    A = "a"

def helper(x, kinds=frozenset({"x", "y", "z"})):
    return x * len(kinds) if "q" not in {"x", "y", "zz"} else math.pi

class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.settings = {"set": {"p", "q", "r"}, "kind": Kind.A}
        self.settings["act"] = functools.partial(F.leaky_relu, negative_slope=0.2)
        self.table = torch.arange(3.0)
        self.call = lambda x: helper(x) * self.table.sum()
        self.register_forward_hook(lambda module, args, result: result + len(CHOICES))

    def forward(self, x):
        return self.settings["act"](self.call(x))

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), Layer(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


@pytest.mark.exhaustive
def test_other_processes_agree_on_the_identity(tmp_path):
    (tmp_path / "layers.py").write_text(LAYERS)
    script = (
        "import layers; from sktransfer.backbones import load_backbone\n"
        "for made in (layers.network, 'squeezenet1_1'):\n"
        "    print(load_backbone(made, weights=None)._loaded.identity)\n"
    )
    answers = []
    for seed in ("1", "2"):
        search = os.pathsep.join([str(tmp_path), str(Path(sktransfer.__file__).parents[1])])
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": search}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        answers.append(done.stdout.split())
    assert answers[0] == answers[1]
    assert all(len(identity) == 64 for identity in answers[0])


# What is written down


def written(value, where="x"):
    writer = Writer({})
    return writer.text([writer.write(value, where)])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (0.0, -0.0), (1, 1.0), (1, True), (None, "None"), ("1", 1), (b"a", "a"), ((1,), [1]), ([1, 2], [[1], 2]),
        ({1: 2, 3: 4}, {3: 4, 1: 2}), (float("nan"), float("inf")), (np.float32(1), np.float64(1)), (1 + 0j, 1.0),
        (torch.zeros(2, 3), torch.zeros(3, 2)), (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
        (np.zeros(2), np.zeros(2, dtype="<i8")), (torch.float32, "torch.float32"), (Mode.ONE, 1), (Data(1), Call(1)),
    ],
)  # fmt: skip
def test_values_of_another_kind_are_others(one, other):
    texts = [written(value) for value in (one, other)]
    assert texts[0] != texts[1]


@pytest.mark.parametrize("value", [torch.zeros(2).to_sparse(), torch.zeros(2, device="meta"), iter("a")])
def test_what_cannot_be_seen_whole_is_refused_by_its_place(value):
    with pytest.raises(NotWritableError, match=r"^here holds a"):
        written(value, "here")


def test_a_preprocessing_of_ones_own_class_is_refused():
    class Brighter(ImagePreprocessing):
        def normalise(self, batch):
            return super().normalise(batch) + 1

    made = tiny_cnn()
    made.preprocessing = Brighter()
    with pytest.raises(ValueError, match=r"is a Brighter; expected ImagePreprocessing itself"):
        load_backbone(made)


def test_a_preprocessing_holds_plain_numbers_whatever_it_was_given():
    given = ImagePreprocessing(resize=np.int64(40), crop=[32, 32], mean=torch.tensor([0.5]), std=np.array([0.25]))
    assert repr(given) == repr(ImagePreprocessing(resize=40, crop=(32, 32), mean=(0.5,), std=(0.25,)))
