"""Threads, devices and short memory change how fast activations come, not what they are."""

import os
import subprocess
import sys
import textwrap
import threading
import warnings
from functools import cache

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from networks import rest_exhaustive, tiny_cnn
from torch import nn
from torch.overrides import TorchFunctionMode

from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktransfer._computing import _execution
from sktransfer._computing._allocator import SWITCH, keep_freed_blocks
from sktransfer._computing._execution import VALUES_AT_ONCE, Execution, lend, multiplies_bfloat16
from sktransfer.inputs.images._preprocessing import _per_channel
from sktransfer.inputs.images._reader import ImageSamples


@pytest.fixture
def threads():
    """Four threads of torch, which are set back."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield 4
    torch.set_num_threads(before)


def many(count=400):
    return np.random.default_rng(0).integers(0, 256, (count, 40, 40, 3), dtype=np.uint8)


def features(X, **parameters):
    how = {"feature_cache": None, "random_state": 0, "precision": "float32", **parameters}
    return PretrainedFeatureExtractor(tiny_cnn, **how).fit_transform(X)


def test_threads_give_the_same_features_in_the_same_order(threads):
    X = many()
    several = features(X)
    assert torch.get_num_threads() == threads, "the caller's number is as it was"
    torch.set_num_threads(1)
    np.testing.assert_allclose(several, features(X), rtol=1e-4, atol=1e-5)


def test_each_thread_computes_alone(threads, monkeypatch):
    seen = set()
    original = nn.Conv2d.forward

    def look(self, x):
        seen.add((threading.current_thread().name, torch.get_num_threads()))
        return original(self, x)

    monkeypatch.setattr(nn.Conv2d, "forward", look)
    features(many())
    workers = {name for name, count in seen if count == 1}
    assert len(workers) > 1
    assert all(name.startswith("sktransfer-compute") for name in workers)
    seen.clear()
    features(many(3))
    assert seen == {(threading.current_thread().name, threads)}, "a few samples use all threads at once"


def test_threads_end_with_the_pass_and_with_its_failure(threads):
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3)

        def forward(self, x):
            torch._assert(x.sum() >= 0, "a negative batch")
            return self.conv(x).mean((2, 3))

    X = many().astype(np.float32) / 255
    extractor = PretrainedFeatureExtractor(Picky(), feature_cache=None, pixel_range=(0, 1)).fit(X)
    extractor.transform(X)
    with pytest.raises(ValueError, match="could not run samples of shape"):
        PretrainedFeatureExtractor(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Conv2d(5, 2, 3)), feature_cache=None).fit(X)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sktransfer")]


def test_what_one_processor_computes_at_once_depends_on_the_size_of_samples():
    run = Execution.plan(32, None, "cpu", "float32", 0)
    assert run.at_once(3 * 224 * 224) == 8
    assert run.at_once(3 * 32 * 32) == 32
    assert run.at_once(VALUES_AT_ONCE * 5) == 1


@pytest.mark.exhaustive
def test_workers_of_a_search_share_the_processors():
    """In joblib's processes torch has its share of threads, and this package starts no others beside them."""
    counts = Parallel(n_jobs=2)(delayed(torch.get_num_threads)() for _ in range(4))
    assert sum(sorted(counts)[:2]) <= max(2, os.cpu_count() or 1)


def test_auto_is_bfloat16_only_where_the_processor_multiplies_it():
    fast = multiplies_bfloat16(torch.device("cpu"))
    assert Execution.plan(32, None, "cpu", "auto", 0).bfloat16 == fast
    assert Execution.plan(32, None, "cpu", "bfloat16", 0).bfloat16
    assert not Execution.plan(32, None, "cpu", "float32", 0).bfloat16


@pytest.mark.parametrize(
    ("has", "intel", "fast"),
    [((), False, False), (("avx512_bf16",), False, True), (("avx512_bf16",), True, False)]
    + [(("avx512_bf16", "amx_tile"), intel, True) for intel in (True, False)],
)
def test_auto_is_what_is_faster_on_the_processor(has, intel, fast, monkeypatch):
    """Intel's AVX512-BF16, without AMX, is slower than float32: networks were measured at 0.6 to 1.06 of its speed."""
    monkeypatch.setattr(_execution, "is_of_intel", lambda: intel)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(has, True), raising=False)
    assert Execution.plan(32, None, "cpu", "auto", 0).bfloat16 == fast


@pytest.mark.parametrize(
    "name", rest_exhaustive(["resnet18", "mobilenet_v3_small", "vit_b_32", "convnext_tiny"], "mobilenet_v3_small")
)
def test_bfloat16_features_point_where_float32_features_do(name):
    X = many(4)
    exact, fast = (
        PretrainedFeatureExtractor(
            name, weights=None, random_state=0, precision=precision, feature_cache=None
        ).fit_transform(X)
        for precision in ("float32", "bfloat16")
    )
    cosines = (exact * fast).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(fast, axis=1)
    assert cosines.min() > 0.999


class Hungry(nn.Module):
    """Runs out of memory with more than `most` samples, as CUDA would."""

    most = 3
    tried: list[int] = []  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(ration(x)).mean((2, 3))


def ration(x):
    Hungry.tried.append(len(x))
    if len(x) > Hungry.most:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")
    return x


torch.fx.wrap("ration")


@pytest.mark.parametrize("most", [1, 3, 5])
def test_out_of_memory_halves_the_batch_with_one_warning(most, monkeypatch):
    monkeypatch.setattr(Hungry, "most", 100)
    torch.manual_seed(0)
    network, X = Hungry(), many(60)
    extractor = PretrainedFeatureExtractor(network, feature_cache=None, batch_size=20, precision="float32").fit(X)
    expected = extractor.transform(X)
    monkeypatch.setattr(Hungry, "most", most)
    monkeypatch.setattr(Hungry, "tried", [])
    with pytest.warns(UserWarning, match="CUDA ran out of memory with 20 samples per step") as caught:
        got = extractor.transform(X)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert len([warning for warning in caught if "CUDA" in str(warning.message)]) == 1
    assert sum(size > most for size in Hungry.tried) <= 4, "what fits is remembered"


def test_not_even_one_sample_fits(monkeypatch):
    monkeypatch.setattr(Hungry, "most", 100)
    X = many(10)
    extractor = PretrainedFeatureExtractor(Hungry(), feature_cache=None).fit(X)
    monkeypatch.setattr(Hungry, "most", 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with pytest.raises(torch.cuda.OutOfMemoryError):
            extractor.transform(X)


def test_samples_that_do_not_fit_beside_the_network_are_copied_and_prepared_in_halves(monkeypatch):
    X, prepared = many(40), ImageSamples.prepare
    expected = features(X)

    def prepare(samples, batch):
        if len(batch) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return prepared(samples, batch)

    extractor = PretrainedFeatureExtractor(tiny_cnn, feature_cache=None, random_state=0, precision="float32").fit(X)
    monkeypatch.setattr(ImageSamples, "prepare", prepare)
    with pytest.warns(UserWarning, match="CUDA ran out of memory"):
        got = extractor.transform(X)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("message", ["CUDA error: CUBLAS_STATUS_ALLOC_FAILED", "cuDNN error: CUDNN_STATUS_BAD"])
def test_an_error_of_the_device_is_not_said_to_be_one_of_the_samples(message, monkeypatch):
    monkeypatch.setattr(Hungry, "most", 100)
    extractor = PretrainedFeatureExtractor(Hungry(), feature_cache=None).fit(many(4))

    def fail(*args):
        raise RuntimeError(message)

    monkeypatch.setattr(torch.nn.functional, "conv2d", fail)
    monkeypatch.setattr(nn.Conv2d, "forward", fail)
    with pytest.raises(RuntimeError, match=message):
        extractor.transform(many(4))


def test_training_out_of_memory_goes_on_with_half_the_batch(monkeypatch, pictures):
    X, y = pictures
    monkeypatch.setattr(Hungry, "most", 6)
    monkeypatch.setattr(Hungry, "tried", [])
    how = {"freeze_depth": 0, "strategy": "fine_tune", "max_epochs": 2, "random_state": 0, "precision": "float32"}
    with pytest.warns(UserWarning, match="CUDA ran out of memory"):
        halved = FineTunedClassifier(Hungry, batch_size=24, **how).fit(X, y)
    monkeypatch.setattr(Hungry, "most", 100)
    small = FineTunedClassifier(Hungry, batch_size=6, **how).fit(X, y)
    np.testing.assert_allclose(halved.predict_proba(X), small.predict_proba(X), rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_features_on_a_gpu_are_those_of_the_cpu_and_nothing_but_shared_networks_stays_there():
    import sktransfer

    X = many()
    on_cpu = features(X, device="cpu")
    np.testing.assert_allclose(features(X, device="cuda"), on_cpu, rtol=1e-2, atol=1e-3)
    held = torch.cuda.memory_allocated()
    features(X, device="cuda")
    assert torch.cuda.memory_allocated() == held
    sktransfer.clear_cache()
    assert torch.cuda.memory_allocated() < held


@pytest.mark.exhaustive
def test_import_is_fast_beside_torch_and_scikit_learn():
    code = """
        import gc, time
        start = time.process_time()  # of the processor: other programs may be at work
        import torch, sklearn
        theirs = time.process_time() - start
        gc.disable()  # a look through all that torch has made takes as long as the import
        start = time.process_time()
        import sktransfer
        print((time.process_time() - start) / theirs)
    """
    plain = {name: value for name, value in os.environ.items() if name != "SCIPY_ARRAY_API"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    shares = [float(subprocess.check_output(command, env=plain)) for _ in range(5)]
    # A third of a second beside five: of their share, since seconds of a processor grow where others use its caches.
    assert min(shares) < 0.067


def faults_of_passes(setting, first=""):
    """Run passes in a new process, and make tensors of 4 MiB after them.

    Return what `keep_freed_blocks` said, faults per image, MiB not handed back, and faults per tensor.
    """
    code = """
        import ctypes, resource
        import numpy as np
        import torch
        from torch import nn
        from sktransfer import PretrainedFeatureExtractor
        torch.set_num_threads(2)
        from sktransfer._computing._allocator import keep_freed_blocks
        network = nn.Sequential(*[nn.Conv2d(3, 3, 1) for _ in range(4)], nn.AdaptiveAvgPool2d(1), nn.Flatten())
        X = np.zeros((48, 512, 512, 3), np.uint8)
        extractor = PretrainedFeatureExtractor(network, feature_cache=None, precision="float32", pixel_range=(0, 255))
        extractor.fit(X).transform(X)
        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * resource.getpagesize() / 2**20
        faults = []
        for _ in range(3):  # on a busy machine, threads may take other shares of the memory than before
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            extractor.transform(X)
            faults.append((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / len(X))
        left = resident()
        ctypes.CDLL(None).malloc_trim(0)
        left -= resident()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            torch.ones(2**20)
        after = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20
        print(keep_freed_blocks(), min(faults), left, after)
    """
    others = ("MALLOC", "GLIBC", SWITCH)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    command = [sys.executable, "-c", first + textwrap.dedent(code)]
    done, *numbers = subprocess.check_output(command, env={**environment, **setting}, text=True).split()[-4:]
    return done == "True", *map(float, numbers)


@pytest.mark.exhaustive
@pytest.mark.skipif(sys.platform != "linux", reason="this is about glibc")
@pytest.mark.parametrize(
    ("setting", "kept"),
    [
        ({}, False),
        ({SWITCH: "0"}, False),
        ({SWITCH: "1"}, True),
        ({SWITCH: "1", "MALLOC_TRIM_THRESHOLD_": "131072"}, False),
    ],
)
def test_freed_memory_is_kept_for_the_next_layer_where_the_environment_asks_for_it(setting, kept):
    done, faults, *_ = faults_of_passes(setting)
    assert done == kept
    if kept:
        assert faults < 300, "of 4 KiB an image, whose every map is 3 MiB"


@pytest.mark.exhaustive
@pytest.mark.skipif(sys.platform != "linux", reason="this is about glibc")
def test_a_worker_of_dask_keeps_freed_memory_while_a_pass_runs():
    pytest.importorskip("distributed")
    of_dask, worker = {"MALLOC_TRIM_THRESHOLD_": "65536"}, "import distributed.worker"
    _, faults, left, after = faults_of_passes(of_dask, worker)
    assert faults < 1500, "of 4 KiB an image, whose every map is 3 MiB"
    assert left < 10, "MiB are not handed back after a pass"
    assert after > 500, "of 4 KiB a tensor of 4 MiB: what Dask has set does not hold after a pass"
    assert faults_of_passes(of_dask)[1] > 2 * faults, "elsewhere the variable is a person's"


def test_the_variable_for_freed_memory_takes_0_and_1_only(monkeypatch):
    monkeypatch.setenv(SWITCH, "yes")
    with pytest.raises(ValueError, match=f"Got {SWITCH}='yes' in the environment; expected \"1\""):
        keep_freed_blocks.__wrapped__()


class Lent(nn.Module):
    """Writes down where it is sent, and refuses where the device is full."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.sent, self.full = [], False

    def to(self, device):
        if self.full and str(device) != "cpu":
            raise torch.cuda.OutOfMemoryError("no room")
        self.sent.append(str(device))
        return self


def test_a_lent_network_comes_back_when_its_last_user_is_done_even_if_there_was_no_room():
    network, cuda = Lent(), torch.device("cuda")
    with lend(network, cuda), lend(network, cuda):
        assert network.sent == ["cuda", "cuda"]
    assert network.sent == ["cuda", "cuda", "cpu"]
    network.full = True
    with pytest.raises(torch.cuda.OutOfMemoryError), lend(network, cuda):
        pass
    network.full, network.sent = False, []
    with lend(network, cuda):
        pass
    assert network.sent == ["cuda", "cpu"], "the attempt that failed is not counted as a user"


def test_a_network_that_is_lent_in_inference_mode_can_be_trained_afterwards():
    class Moved(nn.Linear):
        def to(self, device):
            return super().to(torch.float64 if str(device) == "cuda" else torch.float32)  # which copies, as a move does

    network = Moved(2, 2)
    with torch.inference_mode(), lend(network, torch.device("cuda")):
        assert network.weight.dtype == torch.float64
    assert not any(parameter.is_inference() for parameter in network.parameters())


# The GPU of a Mac: what becomes of it is tried here with a device that pretends, on no real one


class PretendsToBeAMac(TorchFunctionMode):
    """Takes what is sent to "mps" for sent to the CPU, refuses what such a GPU cannot hold, and counts."""

    def __init__(self):
        super().__init__()
        self.sent = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if isinstance(args[0] if args else None, torch.Tensor) and any(map(self._is_mps, (*args, *kwargs.values()))):
            assert not any(isinstance(one, torch.Tensor) and one.dtype == torch.float64 for one in args), "MPS has none"
            args = [torch.device("cpu") if self._is_mps(one) else one for one in args]
            kwargs = {name: torch.device("cpu") if self._is_mps(one) else one for name, one in kwargs.items()}
            self.sent += 1
        return function(*args, **kwargs)

    @staticmethod
    def _is_mps(one):
        return (isinstance(one, torch.device) and one.type == "mps") or (isinstance(one, str) and one == "mps")


@pytest.fixture
def mac(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", cache(lambda: True))  # torch asks what it wraps
    with PretendsToBeAMac() as mode:
        yield mode


def test_a_mac_is_taken_where_torch_has_it_and_never_by_itself(monkeypatch):
    for cuda in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        with pytest.raises(ValueError, match=r"Got device='mps'; torch finds no Apple GPU here\. Use device="):
            Execution.plan(32, None, "mps", "auto", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    plan = Execution.plan(32, None, "mps", "auto", 0)
    assert (plan.device.type, plan.bfloat16, plan.arithmetic) == ("mps", False, "mps float32")
    assert Execution.plan(32, None, "auto", "auto", 0).device.type == "cpu"


def test_on_a_mac_features_are_computed_in_one_thread_and_come_back(threads, monkeypatch, mac):
    seen, X = set(), many()
    original = nn.Conv2d.forward

    def look(self, x):
        seen.add(threading.current_thread().name)
        return original(self, x)

    monkeypatch.setattr(nn.Conv2d, "forward", look)
    away = features(X, device="mps")
    assert seen == {threading.current_thread().name}
    assert mac.sent > 10
    np.testing.assert_allclose(away, features(X, device="cpu"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"freeze_depth": 2, "strategy": "fine_tune"},
        {"freeze_depth": 0, "augment": "light", "early_stopping": True},
        {"freeze_depth": 2, "strategy": "gradual", "interpolation": "auto", "hidden_layer_sizes": (8,)},
    ],
    ids=["head", "blocks", "augmented", "interpolated"],
)
@pytest.mark.parametrize("estimator_class", [FineTunedClassifier, FineTunedRegressor])
def test_on_a_mac_models_are_trained_as_on_the_cpu(estimator_class, parameters, pictures, mac):
    X, y = pictures[0], (pictures[1] == "leaf").astype(int)
    how = {"random_state": 0, "precision": "float32", "max_epochs": 2, "feature_cache": None, **parameters}
    on_cpu = estimator_class(tiny_cnn, **how, device="cpu").fit(X, y)
    before = mac.sent
    away = estimator_class(tiny_cnn, **how, device="mps").fit(X, y)
    assert mac.sent > before
    assert away.transform(X).shape == on_cpu.transform(X).shape
    if not parameters:  # elsewhere steps are divided otherwise, and rounding grows
        np.testing.assert_allclose(away.transform(X), on_cpu.transform(X), rtol=1e-4, atol=1e-4)
    assert away.score(X, y) == pytest.approx(on_cpu.score(X, y), abs=0.2)
    assert {parameter.device.type for parameter in away.net_.module_.parameters()} == {"cpu"}


@pytest.mark.parametrize(("device", "named"), [("auto", "cuda:1"), ("cuda", "cuda:1"), ("cuda:0", "cuda:0")])
def test_cuda_alone_is_the_card_that_is_current_now(device, named, monkeypatch):
    for name, answer in {
        "is_available": True,
        "device_count": 2,
        "current_device": 1,
        "get_device_capability": (9, 0),
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *args, answer=answer: answer)
    assert str(Execution.plan(32, None, device, "auto", 0).device) == named


def test_means_go_to_a_gpu_without_waiting_for_it(monkeypatch):
    sent = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: sent.append("pinned") or tensor)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *args, **how: sent.append((args, how)) or tensor)
    cuda = torch.device("cuda")
    assert _per_channel((0.5, 0.25), cuda).flatten().tolist() == [0.5, 0.25]
    assert sent == ["pinned", ((cuda,), {"non_blocking": True})]
