"""Weights files: read, checked, downloaded whole or not at all, and never run."""

import functools
import hashlib
import http.server
import multiprocessing
import pathlib
import pickle
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from networks import tiny_cnn
from safetensors.torch import save_file
from torch import nn
from torchvision.models import Weights, WeightsEnum, densenet121, get_model, get_model_weights
from torchvision.transforms._presets import ImageClassification

from sktransfer.backbones import list_backbones, load_backbone
from sktransfer.backbones.sources._state_dicts import read_state_dict
from sktransfer.backbones.sources._weights import SCHEMES, fetch, fill, fingerprint


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# Reading


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pth_file_gives_the_same_bits_wrapped_or_not(wrapper: str | None, zipped: bool, tmp_path: Path):
    state = tiny_cnn().state_dict()
    saved = state if wrapper is None else {wrapper: state, "epoch": 3, "optimizer": {"lr": 0.1}}
    torch.save(saved, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    assert equal(read_state_dict(tmp_path / "w.pth"), state)
    assert equal(read_state_dict(str(tmp_path / "w.pth")), state)


def test_a_safetensors_file_gives_the_same_bits(tmp_path: Path):
    state = tiny_cnn().state_dict()
    save_file(dict(state), tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "w.pth")
    assert equal(read_state_dict(tmp_path / "w.safetensors"), state)
    one, other = (load_backbone(tiny_cnn, weights=tmp_path / file) for file in ("w.safetensors", "w.pth"))
    assert one.fingerprint == other.fingerprint


def test_a_path_may_start_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(tiny_cnn().state_dict(), tmp_path / "w.pth")
    assert "0.weight" in read_state_dict("~/w.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_densenets_old_names_with_dots_are_understood(suffix: str, tmp_path: Path):
    network = densenet121()
    dotted = {}
    for name, tensor in network.state_dict().items():
        for part in ("norm", "conv"):
            for number in "12":
                if "denselayer" in name:
                    name = name.replace(f".{part}{number}.", f".{part}.{number}.")
        dotted[name] = tensor
    assert "features.denseblock1.denselayer1.norm.1.weight" in dotted
    (save_file if suffix == ".safetensors" else torch.save)(dotted, tmp_path / f"old{suffix}")
    assert load_backbone("densenet121", weights=tmp_path / f"old{suffix}").fingerprint == fingerprint(network)


@pytest.mark.parametrize("kind", ["missing", "folder"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_file_is_said_to_be_none(kind: str, suffix: str, tmp_path: Path):
    path = tmp_path / f"w{suffix}"
    if kind == "folder":
        path.mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"Got weights='.*', which is not a file.*; expected a path .*IMAGENET1K_V1"
    ):
        load_backbone("squeezenet1_1", weights=path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_a_truncated_file_is_refused_with_its_path(share: float, form: str, tmp_path: Path):
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    state = dict(tiny_cnn().state_dict())
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"w\.(pth|safetensors)'"):
        read_state_dict(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_something_else_is_refused(suffix: str, tmp_path: Path):
    path = tmp_path / f"w{suffix}"
    path.write_text("<html><body>404 Not Found</body></html>")
    with pytest.raises(ValueError, match=r"not a weights file at all|not a whole safetensors file"):
        read_state_dict(path)


@pytest.mark.parametrize("content", [[torch.ones(2)], {"epoch": 3}, {0: torch.ones(2)}, torch.ones(2), {"a": {"b": 1}}])
def test_a_file_that_holds_no_tensors_by_name_is_refused(content, tmp_path: Path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=rf"holds a {type(content).__name__}; expected a state_dict: tensors by name"):
        read_state_dict(tmp_path / "w.pth")


class RunsCode:
    """As an attacker writes it: unpickling touches a file."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return pathlib.Path.touch, (self.mark,)


def plain_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("save", [torch.save, plain_pickle])
def test_a_file_that_wants_to_run_code_is_refused_and_its_code_is_not_run(save: Callable, tmp_path: Path):
    mark, file = tmp_path / "ran", tmp_path / "w.pth"
    save({"weight": torch.ones(2), "more": RunsCode(mark)}, file)
    with pytest.raises(ValueError, match=r"Refused to load '.*w\.pth'.*run code.*weights_only=True"):
        load_backbone(tiny_cnn, weights=file)
    assert not mark.exists()
    torch.load(file, weights_only=False) if save is torch.save else pickle.loads(file.read_bytes())
    assert mark.exists(), "the file must be able to run code, or this test says nothing"


def test_a_whole_pickled_network_is_refused_and_its_class_named(tmp_path: Path):
    torch.save(tiny_cnn(), tmp_path / "network.pth")
    with pytest.raises(ValueError, match=r"Refused to load .*Sequential.*Save the network's state_dict\(\) alone"):
        read_state_dict(tmp_path / "network.pth")


# Filling


def broken(state: dict[str, torch.Tensor], how: str) -> dict[str, torch.Tensor]:
    state = dict(state)
    if how == "missing":
        del state["4.conv1.weight"]
    elif how == "unexpected":
        state["9.weight"] = torch.ones(2)
    else:
        state["0.weight"] = torch.ones(8, 1, 3, 3)
    return state


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"1 missing key \(4\.conv1\.weight\); 0 unexpected keys; 0 other shapes"),
        ("unexpected", r"0 missing keys; 1 unexpected key \(9\.weight\); 0 other shapes"),
        ("shape", r"0 missing keys; 0 unexpected keys; 1 other shape \(0\.weight \(8, 1, 3, 3\) for \(8, 3, 3, 3\)\)"),
    ],
)
def test_weights_that_do_not_match_are_named_and_the_network_is_unharmed(how: str, message: str):
    network = tiny_cnn()
    before = fingerprint(network)
    state = broken({name: tensor + 1 for name, tensor in network.state_dict().items()}, how)
    with pytest.raises(ValueError, match=f"Got weights from the test that do not match .*Sequential: {message}. Give"):
        fill(network, state, "the test")
    assert fingerprint(network) == before


def test_of_many_keys_that_do_not_match_the_first_five_are_named():
    network = tiny_cnn()
    with pytest.raises(
        ValueError, match=r"missing keys \(0\.weight, 0\.bias, 1\.weight, 1\.bias, 1\.running_mean, \.\.\.\)"
    ):
        fill(network, {}, "an empty file")


def test_files_from_before_batchnorm_counted_are_whole(tmp_path: Path):
    state = {n: t for n, t in tiny_cnn().state_dict().items() if not n.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.pth")
    loaded = load_backbone(tiny_cnn, weights=tmp_path / "old.pth").network.state_dict()
    assert equal({name: loaded[name] for name in state}, state)


def test_a_file_in_half_precision_is_loaded_in_full():
    network = tiny_cnn()
    state = {n: t.half() if t.is_floating_point() else t for n, t in tiny_cnn().state_dict().items()}
    fill(network, state, "a file of float16")
    assert network[0].weight.dtype == torch.float32
    assert torch.equal(network[0].weight, state["0.weight"].float())


def test_real_weights_rounded_to_half_precision_are_loaded(assets: Path):
    file = assets / "weights" / "squeezenet1_1-float16-rounded.pth"
    network = load_backbone("squeezenet1_1", weights=file).network
    state = torch.load(file, weights_only=True)
    assert network.features[0].weight.dtype == torch.float32
    assert torch.equal(network.features[0].weight, state["features.0.weight"].float())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(self.a(x))


def test_a_tied_weight_that_is_stored_once_is_whole(tmp_path: Path):
    save_file({"a.weight": torch.ones(4, 4)}, tmp_path / "w.safetensors")
    network = load_backbone(Tied, weights=tmp_path / "w.safetensors").network
    assert torch.equal(network.b.weight, torch.ones(4, 4))


# Fingerprints


class Holds(nn.Module):
    def __init__(self, **tensors: torch.Tensor):
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)


def test_a_fingerprint_is_equal_for_equal_weights_however_they_lie_in_memory():
    network, other = tiny_cnn(), tiny_cnn()
    other.load_state_dict(network.state_dict())
    assert fingerprint(other) == fingerprint(network)
    assert fingerprint(other.to(memory_format=torch.channels_last)) == fingerprint(network)
    assert len(fingerprint(network)) == 64


@pytest.mark.parametrize(
    "other",
    [
        Holds(a=torch.tensor([1.0, 2.0]), b=torch.tensor([3.0000002])),
        Holds(a=torch.tensor([1.0, 2.0]), c=torch.tensor([3.0])),
        Holds(a=torch.tensor([1.0, 2.0]), b=torch.tensor(3.0)),
        Holds(a=torch.tensor([1.0, 2.0]), b=torch.tensor([3.0], dtype=torch.float64)),
        Holds(a=torch.tensor([1.0]), b=torch.tensor([2.0, 3.0])),
        Holds(a=torch.tensor([1.0, 2.0, 3.0])),
    ],
)
def test_a_fingerprint_differs_by_a_bit_a_name_a_shape_or_a_type(other: nn.Module):
    assert fingerprint(other) != fingerprint(Holds(a=torch.tensor([1.0, 2.0]), b=torch.tensor([3.0])))


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool, torch.complex64]
)
def test_a_fingerprint_is_taken_of_tensors_of_every_type_and_shape(dtype: torch.dtype):
    ones, zeros = (
        Holds(a=make(()).to(dtype), b=torch.empty(0, dtype=dtype), c=make((2, 3)).to(dtype))
        for make in (torch.ones, torch.zeros)
    )
    assert fingerprint(ones) != fingerprint(zeros)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_network_that_asks_for_the_version_of_its_weights_is_told(ending: str, tmp_path: Path):
    """torchvision's MNASNet does; a safetensors file cannot say."""
    network = get_model("mnasnet0_5", weights=None)
    path = tmp_path / f"w.{ending}"
    (torch.save if ending == "pth" else save_file)(network.state_dict(), path)
    backbone = load_backbone("mnasnet0_5", path)
    assert equal(backbone.network.state_dict(), network.state_dict())
    again = pickle.loads(pickle.dumps(backbone))
    assert again.fingerprint == backbone.fingerprint


# Downloads, through torch's own door


def weights_at(url: str) -> WeightsEnum:
    """As torchvision writes them down."""
    transforms = functools.partial(ImageClassification, crop_size=8)
    return WeightsEnum("Tiny_Weights", {"V1": Weights(url=url, transforms=transforms, meta={"min_size": (1, 1)})})["V1"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder where torch keeps what it downloads."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("sktransfer.backbones.sources._weights.SCHEMES", ("https", "http", "file"))
    monkeypatch.setattr("torch.hub._hub_dir", tmp_path / "hub")
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A file under a name that carries the start of its hash, as torchvision's do."""
    folder = tmp_path / "published"
    folder.mkdir()
    torch.save(tiny_cnn().state_dict(), folder / "w.pth")
    digest = hashlib.sha256((folder / "w.pth").read_bytes()).hexdigest()
    return (folder / "w.pth").rename(folder / f"tiny-{digest[:8]}.pth")


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; what is asked for under /short/ ends in the middle."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if not self.path.startswith("/short/"):
            super().do_GET()
            return
        content = Path(self.directory, self.path.rpartition("/")[2]).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(published: Path) -> Iterator[http.server.ThreadingHTTPServer]:
    handler = functools.partial(Server, directory=str(published.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.asked = []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def address(server: http.server.ThreadingHTTPServer, path: str) -> str:
    return f"http://127.0.0.1:{server.server_port}/{path}"


def test_weights_are_downloaded_once_and_kept(hub: Path, published: Path, server):
    weights = weights_at(address(server, published.name))
    fetch(weights)
    assert (hub / published.name).read_bytes() == published.read_bytes()
    fetch(weights)
    assert server.asked == [f"/{published.name}"]
    assert [file.name for file in hub.iterdir()] == [published.name]


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_only_https_is_downloaded_from(scheme: str, hub: Path, published: Path, server, monkeypatch):
    monkeypatch.setattr("sktransfer.backbones.sources._weights.SCHEMES", SCHEMES)
    url = address(server, published.name) if scheme == "http" else published.as_uri()
    with pytest.raises(ValueError, match=rf"Refused to download {scheme}:.*uses {scheme}; expected https") as caught:
        fetch(weights_at(url))
    assert "weights=PATH" in str(caught.value)
    assert server.asked == []
    assert not hub.exists()


def test_all_of_torchvisions_weights_come_by_https_and_carry_a_hash():
    members = [member for name in list_backbones() for member in get_model_weights(name)]
    assert len(members) > 80
    for member in members:
        assert re.fullmatch(r"https://[^/]+/\S*-[0-9a-f]{8,}\.pth", member.url)


def test_a_url_of_a_file_is_fetched_too(hub: Path, published: Path):
    fetch(weights_at(published.as_uri()))
    assert (hub / published.name).read_bytes() == published.read_bytes()


def test_a_file_put_in_place_by_hand_needs_no_network(hub: Path, published: Path):
    hub.mkdir(parents=True)
    (hub / published.name).write_bytes(published.read_bytes())
    fetch(weights_at(f"http://nowhere.invalid/{published.name}"))


def test_a_download_that_is_not_what_its_name_promises_is_not_kept(hub: Path, published: Path, server):
    published.rename(published.with_name("tiny-00000000.pth"))
    with pytest.raises(ValueError, match=r"arrived damaged \(invalid hash.*nothing was kept. Try again.*weights=PATH"):
        fetch(weights_at(address(server, "tiny-00000000.pth")))
    assert list(hub.iterdir()) == []


def test_a_download_that_ends_in_the_middle_is_not_kept(hub: Path, published: Path, server):
    with pytest.raises((ValueError, ConnectionError), match="weights=PATH"):
        fetch(weights_at(address(server, f"short/{published.name}")))
    assert list(hub.iterdir()) == []
    fetch(weights_at(address(server, published.name)))
    assert (hub / published.name).read_bytes() == published.read_bytes()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_without_a_network_the_error_says_what_to_do(hub: Path, published: Path):
    url = f"http://127.0.0.1:{closed_port()}/{published.name}"
    with pytest.raises(ConnectionError) as caught:
        fetch(weights_at(url))
    message = str(caught.value)
    assert f"Download {url}" in message
    assert repr(str(hub / published.name)) in message
    assert "weights=PATH" in message
    assert list(hub.iterdir()) == []


def test_a_file_that_the_server_does_not_have_is_a_failed_download(hub: Path, server):
    with pytest.raises(ConnectionError, match=r"Could not download .*404.*weights=PATH"):
        fetch(weights_at(address(server, "gone-12345678.pth")))


def test_a_backbones_download_that_fails_says_the_same(hub: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise ConnectionRefusedError("no network here")

    monkeypatch.setattr("torch.hub.urlopen", refuse)
    with pytest.raises(ConnectionError, match=r"no network here.*squeezenet1_1-b8a52dc0\.pth.*weights=PATH"):
        load_backbone("squeezenet1_1")


def test_a_folder_that_cannot_be_written_is_not_taken_for_a_missing_network(hub: Path, published: Path):
    hub.parent.mkdir()
    hub.write_text("a file where the folder should be")
    with pytest.raises(FileExistsError):
        fetch(weights_at(published.as_uri()))


@pytest.mark.parametrize("damage", ["truncated", "emptied", "another"])
def test_a_damaged_file_in_its_place_is_to_be_deleted(damage: str, hub: Path, published: Path):
    hub.mkdir(parents=True)
    content = published.read_bytes()
    place = hub / published.name
    place.write_bytes({"truncated": content[:-100], "emptied": b"", "another": b"<html></html>"}[damage])
    with pytest.raises(ValueError, match=r"is damaged.*Delete it, then try again") as caught:
        fetch(weights_at(published.as_uri()))
    assert repr(str(place)) in str(caught.value)
    place.unlink()
    fetch(weights_at(published.as_uri()))
    assert place.read_bytes() == content


def test_a_file_in_its_place_that_wants_to_run_code_does_not(hub: Path, tmp_path: Path):
    hub.mkdir(parents=True)
    torch.save({"more": RunsCode(tmp_path / "ran")}, hub / "tiny-12345678.pth")
    with pytest.raises(ValueError, match="Delete it"):
        fetch(weights_at("http://nowhere.invalid/tiny-12345678.pth"))
    assert not (tmp_path / "ran").exists()


def fetch_at_once(url: str, barrier, outcomes) -> None:
    """Start to download, wait until all others have too, go on."""
    opened = torch.hub.urlopen

    def wait_for_others(request: object) -> object:
        barrier.wait(60)
        return opened(request)

    torch.hub.urlopen = wait_for_others
    try:
        fetch(weights_at(url))
    except BaseException as error:
        outcomes.put(repr(error))
        raise
    outcomes.put("fetched")


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes cannot be forked here")
def test_processes_that_start_at_once_do_not_disturb_each_other(hub: Path, published: Path):
    context = multiprocessing.get_context("fork")
    barrier, outcomes = context.Barrier(4), context.Queue()
    processes = [context.Process(target=fetch_at_once, args=(published.as_uri(), barrier, outcomes)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [outcomes.get(timeout=60) for _ in processes] == ["fetched"] * 4
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert [file.name for file in hub.iterdir()] == [published.name]
    assert (hub / published.name).read_bytes() == published.read_bytes()
