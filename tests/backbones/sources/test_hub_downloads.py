"""Models of a hub in this machine: by name and revision, fetched once, found without it, refused by a sentence."""

import contextlib
import shutil
import socket
import sys
import threading
import time

import numpy as np
import pytest
from model_hub import ask, playing_hub
from networks import rest_exhaustive
from pretrained_models import make_sentence_model, make_text_model

import sktransfer
from sktransfer import PretrainedFeatureExtractor
from sktransfer.backbones import load_backbone, restore_backbone
from sktransfer.backbones._loaded_network import forget_networks
from sktransfer.backbones.sources import _hub_connection

huggingface_hub = pytest.importorskip("huggingface_hub", reason="the library that asks the hub")
TEXTS = ["good film", "bad story of the film", "great"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folders")
    make_text_model("bert", folder / "one", num_hidden_layers=2)
    make_text_model("bert", folder / "two", num_hidden_layers=2, hidden_act="relu")
    make_sentence_model(folder / "sentences")
    return folder


@pytest.fixture
def hub(folders, tmp_path, monkeypatch):
    """A hub with a model of two branches, which the library asks, with an empty folder of its own."""
    with playing_hub() as hub:
        ask(monkeypatch, hub.address, tmp_path / "cache")
        hub.add("someone/bert", main=folders / "one", v1=folders / "two")
        yield hub
    forget_networks()


def features(name, **settings):
    return PretrainedFeatureExtractor(name, precision="float32", feature_cache=None, **settings).fit_transform(TEXTS)


# Revisions


def test_a_revision_is_another_network_than_the_main_branch(hub, folders):
    for name, folder in [("hf:someone/bert", "one"), ("hf:someone/bert@main", "one"), ("hf:someone/bert@v1", "two")]:
        assert load_backbone(name).name == name
        np.testing.assert_array_equal(features(name), features(f"hf:{folders / folder}"))
    commit = hub.models["someone/bert"].revisions["v1"]
    np.testing.assert_array_equal(features(f"hf:someone/bert@{commit}"), features("hf:someone/bert@v1"))
    assert not np.allclose(features("hf:someone/bert"), features("hf:someone/bert@v1"))


def test_a_revision_is_told_in_the_summary_and_tells_networks_apart(hub):
    backbone, main = load_backbone("hf:someone/bert@v1"), load_backbone("hf:someone/bert")
    assert backbone.summary().origin.source == "https://huggingface.co/someone/bert/tree/v1"
    assert main.summary().origin.source == "https://huggingface.co/someone/bert"
    assert backbone._source.key != main._source.key
    assert backbone._source.key is not None
    assert load_backbone("hf:someone/bert@v1").network is backbone.network


def test_a_saved_model_finds_its_commit_again_though_the_branch_has_moved(hub, folders, tmp_path):
    model = PretrainedFeatureExtractor("hf:someone/bert@v1", precision="float32", store_backbone=False).fit(TEXTS)
    expected = model.transform(TEXTS)
    sktransfer.save(model, tmp_path / "model.safetensors")
    record, _ = model.backbone_.to_record(store_weights=False)
    assert record["source"]["name"] == "hf:someone/bert@v1"
    hub.add("someone/bert", v1=folders / "one")
    shutil.rmtree(tmp_path / "cache")  # as on another machine
    forget_networks()
    np.testing.assert_array_equal(sktransfer.load(tmp_path / "model.safetensors").transform(TEXTS), expected)
    assert restore_backbone(record, {}).fingerprint == model.backbone_.fingerprint
    forget_networks()
    assert not np.allclose(features("hf:someone/bert@v1"), expected)


def test_a_branch_that_has_moved_is_another_network_in_the_same_process(hub, folders):
    before = features("hf:someone/bert")
    np.testing.assert_array_equal(features("hf:someone/bert"), before)
    hub.add("someone/bert", main=folders / "two")
    assert not np.allclose(features("hf:someone/bert"), before)


def test_all_files_are_of_one_commit_though_the_branch_moves_meanwhile(hub, folders, monkeypatch):
    answer, asked = hub.answer, []

    def moving(path):
        asked.append(path)
        if len(asked) == 4:  # the first file was asked for, looked at, and fetched
            hub.add("someone/bert", main=folders / "two")
        return answer(path)

    monkeypatch.setattr(hub, "answer", moving)
    np.testing.assert_array_equal(features("hf:someone/bert"), features(f"hf:{folders / 'one'}"))


@pytest.mark.parametrize("name", ["a@b", "some one@v1"])
def test_a_folder_with_the_sign_in_its_name_is_that_folder(name, folders, tmp_path, monkeypatch):
    shutil.copytree(folders / "one", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    expected = features(f"hf:{folders / 'one'}")
    for place in (name, f"./{name}", tmp_path / name):
        np.testing.assert_array_equal(features(f"hf:{place}"), expected)


@pytest.mark.parametrize("revision", ["", "../../x", "/x", "a b", "a//b", "-x", "x?y"])
def test_what_cannot_be_a_revision_is_refused(revision, hub):
    with pytest.raises(ValueError, match='whose revision behind "@" is'):
        load_backbone(f"hf:someone/bert@{revision}")
    assert hub.asked == []


@pytest.mark.parametrize("commit", ["../../x", "main", "", "A" * 40, 7])
def test_a_saved_commit_that_is_none_is_refused(commit, folders):
    record, tensors = load_backbone(f"hf:{folders / 'one'}").to_record()
    record["source"]["commit"] = commit
    with pytest.raises(ValueError, match="40 hexadecimal digits"):
        restore_backbone(record, tensors)


def test_models_that_were_saved_before_commits_were_are_read(folders):
    record, tensors = load_backbone(f"hf:{folders / 'one'}").to_record()
    del record["source"]["commit"]
    assert restore_backbone(record, tensors).fingerprint == record["fingerprint"]


def test_a_model_of_sentence_transformers_comes_with_its_folders(hub, folders):
    hub.add("someone/sentences", main=folders / "sentences")
    np.testing.assert_array_equal(features("hf:someone/sentences"), features(f"hf:{folders / 'sentences'}"))


# What is asked


def test_what_is_here_is_not_asked_for_again_but_for_one_file(hub):
    load_backbone("hf:someone/bert")
    assert sum("GET" in asked and "model.safetensors" in asked for asked in hub.asked) == 1
    hub.asked.clear()
    forget_networks()
    load_backbone("hf:someone/bert")
    assert hub.asked == ["HEAD /someone/bert/resolve/main/config.json"]
    hub.asked.clear()
    forget_networks()
    load_backbone(f"hf:someone/bert@{hub.models['someone/bert'].revisions['main']}")
    assert hub.asked == []


# What is refused


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_model_says_where_conditions_are_accepted(status, hub):
    hub.models["someone/bert"].refusal = status, "GatedRepo"
    with pytest.raises(PermissionError) as caught:
        load_backbone("hf:someone/bert")
    said = str(caught.value)
    assert said.startswith("Got backbone='hf:someone/bert', a gated model")
    assert f"{hub.address}/someone/bert, and log in" in said
    assert "hf auth login" in said
    assert f"HTTP {status}" in said


@pytest.mark.parametrize("refusal", [None, (404, "RepoNotFound")])
def test_a_model_that_is_not_there_is_told_by_its_name(refusal, hub):
    if refusal is not None:
        hub.add("someone/nothing").refusal = refusal
    with pytest.raises(ValueError, match="the hub has no model 'someone/nothing', or does not show it to you"):
        load_backbone("hf:someone/nothing")
    with pytest.raises(ValueError, match="the hub has no model 'someone/nothing'"):
        load_backbone("hf:someone/nothing@v1")


def test_a_revision_that_is_not_there_is_named(hub):
    with pytest.raises(ValueError, match=r"'hf:someone/bert@v9', but the model 'someone/bert' has no revision 'v9'"):
        load_backbone("hf:someone/bert@v9")


@pytest.mark.parametrize(("status", "code"), [(401, "Unauthorized"), (403, "Forbidden")])
def test_a_login_that_is_refused_is_told_from_a_gate(status, code, hub):
    hub.models["someone/bert"].refusal = status, code
    with pytest.raises((PermissionError, ValueError), match=r"[Ll]og in") as caught:
        load_backbone("hf:someone/bert")
    assert "gated" not in str(caught.value)
    assert f"HTTP {status}" in str(caught.value)


def test_a_name_that_the_hub_cannot_have_is_refused(hub):
    with pytest.raises(ValueError, match="cannot be a name on the hub; expected OWNER/NAME"):
        load_backbone("hf:some one/bert")
    assert hub.asked == []


def test_a_model_without_a_description_is_told(hub, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.gguf").write_bytes(b"1")
    hub.add("someone/other", main=tmp_path / "other")
    with pytest.raises(ValueError, match=r"a model that has no config\.json on the hub"):
        load_backbone("hf:someone/other")


def test_a_hub_that_fails_is_not_a_wrong_name(hub):
    hub.models["someone/bert"].refusal = 501, "Broken"
    with pytest.raises(ConnectionError, match=r"Could not fetch config\.json of 'hf:someone/bert'"):
        load_backbone("hf:someone/bert")


def test_a_gate_that_came_later_does_not_keep_from_what_is_here(hub):
    expected = features("hf:someone/bert")
    hub.models["someone/bert"].refusal = 403, "GatedRepo"
    forget_networks()
    np.testing.assert_array_equal(features("hf:someone/bert"), expected)


# Without a network


def refused_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def no_such_host(monkeypatch):
    def look_up(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return "http://hub.invalid"


def looks_up_for_long(monkeypatch, ends):
    def look_up(*_, **__):
        ends.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return "http://hub.invalid"


def answers_nothing():
    """A door at which all wait: Linux answers nothing to who comes when as many wait as may."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(0)
    waiting = [server]
    for _ in range(4):
        waiting.append(socket.socket())
        waiting[-1].setblocking(False)
        waiting[-1].connect_ex(server.getsockname())
    return waiting


def hangs_up():
    """A door that opens to nobody who answers, as where traffic is cut off, or taken by somebody else."""
    server = socket.create_server(("127.0.0.1", 0))

    def hang_up():
        with contextlib.suppress(OSError):
            while True:
                server.accept()[0].close()

    threading.Thread(target=hang_up, daemon=True).start()
    return server


WITHOUT = ["refused", "no such host", "looks up for long", "answers nothing", "hangs up"]


@pytest.fixture
def without_network(request, monkeypatch, tmp_path):
    """Return how to take the network away, and what a message says then; nobody sleeps behind the test."""
    ends, naps, servers, full = threading.Event(), [], [hangs_up()], answers_nothing()

    def nap(seconds):
        naps.append(seconds)

    def take_away(kind, cache=tmp_path / "cache"):
        if kind == "answers nothing" and sys.platform != "linux":
            pytest.skip("only Linux is known to answer nothing")
        monkeypatch.setattr(time, "sleep", nap)  # as between tries
        address, reason = {
            "refused": lambda: (refused_port(), "Connection refused"),
            "no such host": lambda: (no_such_host(monkeypatch), "Name or service not known"),
            "looks up for long": lambda: (looks_up_for_long(monkeypatch, ends), "within 0.2 s"),
            "answers nothing": lambda: (f"http://127.0.0.1:{full[0].getsockname()[1]}", "within 0.2 s"),
            "hangs up": lambda: (f"http://127.0.0.1:{servers[0].getsockname()[1]}", "Connection reset|disconnected"),
        }[kind]()
        ask(monkeypatch, address, cache)
        if "within" in reason:
            monkeypatch.setattr(_hub_connection, "WAITS", 0.2)
        return reason

    yield take_away
    ends.set()
    servers[0].shutdown(socket.SHUT_RDWR)
    for one in (*servers, *full):
        one.close()
    assert naps == []


@pytest.mark.parametrize("kind", WITHOUT)
def test_a_name_that_is_not_here_fails_at_once(kind, without_network):
    reason = without_network(kind)
    with pytest.raises(ConnectionError, match=f"Could not fetch config.json of 'hf:a/b' .*({reason}).*hf:FOLDER"):
        load_backbone("hf:a/b")


@pytest.mark.parametrize("kind", rest_exhaustive(WITHOUT, "refused", "hangs up"))
def test_a_name_that_is_here_needs_no_network(kind, hub, without_network):
    expected = [features("hf:someone/bert"), features("hf:someone/bert@v1")]
    forget_networks()
    without_network(kind)
    np.testing.assert_array_equal(features("hf:someone/bert"), expected[0])
    np.testing.assert_array_equal(features("hf:someone/bert@v1"), expected[1])


def test_a_hub_that_answers_slowly_is_waited_for(hub, folders, monkeypatch):
    """Only that a connection can be opened has to be seen soon; answers may take longer than that."""
    assert _hub_connection.why_unreachable() is None
    monkeypatch.setattr(_hub_connection, "HOLDS", 1e9)
    monkeypatch.setattr(_hub_connection, "WAITS", 0.01)
    answer = hub.answer

    def slowly(path):
        if path.endswith("config.json"):
            threading.Event().wait(0.6)
        return answer(path)

    monkeypatch.setattr(hub, "answer", slowly)
    np.testing.assert_array_equal(features("hf:someone/bert"), features(f"hf:{folders / 'one'}"))


@pytest.mark.parametrize("kind", ["refused", "no such host", "looks up for long", "hangs up"])
def test_weights_of_timm_that_are_not_here_fail_at_once_too(kind, without_network):
    pytest.importorskip("timm", reason="whose weights they are")
    reason = without_network(kind)
    with pytest.raises(ConnectionError, match=f"Could not download the weights http.*({reason}).*weights=PATH"):
        load_backbone("timm:test_resnet")


@pytest.mark.parametrize(
    ("refusal", "error", "match"),
    [
        ((403, "GatedRepo"), PermissionError, r"Got weights of timm, http.*, a gated model.*hf auth login"),
        (None, ValueError, r"Got weights of timm, http.*the hub has no model 'timm/test_resnet"),
    ],
)
def test_weights_of_timm_are_refused_by_the_same_sentences(refusal, error, match, hub):
    pytest.importorskip("timm", reason="whose weights they are")
    if refusal is not None:
        hub.add("timm/test_resnet.r160_in1k").refusal = refusal
    with pytest.raises(error, match=match):
        load_backbone("timm:test_resnet")


def test_a_part_of_a_model_is_not_taken_for_all_of_it(hub, without_network, tmp_path):
    load_backbone("hf:someone/bert")
    forget_networks()
    without_network("refused")
    snapshot = next((tmp_path / "cache").rglob("snapshots")) / hub.models["someone/bert"].revisions["main"]
    for name, what in [("model.safetensors", "the weights"), ("tokenizer.json", "the tokenizer")]:
        (snapshot / name).rename(tmp_path / name)
        with pytest.raises(ConnectionError, match=f"Could not fetch {what} of 'hf:someone/bert'"):
            load_backbone("hf:someone/bert")
        (tmp_path / name).rename(snapshot / name)


def test_the_door_is_tried_once_for_all_files_of_a_model(hub, without_network, monkeypatch):
    load_backbone("hf:someone/bert")
    forget_networks()
    without_network("refused")
    tried = []
    opened = _hub_connection._try_to_open
    monkeypatch.setattr(_hub_connection, "_try_to_open", lambda *door: tried.append(door) or opened(*door))
    monkeypatch.setattr(_hub_connection, "HOLDS", 1e9)
    load_backbone("hf:someone/bert")
    assert len(tried) == 1


@pytest.mark.parametrize("word", ["HF_HUB_OFFLINE"])
def test_who_wants_nobody_asked_is_heard(word, hub, monkeypatch):
    expected = features("hf:someone/bert")
    forget_networks()
    hub.asked.clear()
    monkeypatch.setattr(huggingface_hub.constants, word, True)
    np.testing.assert_array_equal(features("hf:someone/bert"), expected)
    with pytest.raises(ConnectionError, match=f"{word} is set"):
        load_backbone("hf:someone/other")
    assert hub.asked == []


# Doors


def test_an_address_that_answers_nothing_keeps_from_no_other(monkeypatch):
    """As where the newer protocol leads nowhere, and the older one works."""
    full = answers_nothing()
    with contextlib.ExitStack() as opened:
        for one in full:
            opened.enter_context(one)
        door = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        places = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", one.getsockname()) for one in (full[0], door)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: places)
        _hub_connection._open_one_of("hub.invalid", 80, 30)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: places[:1])
        if sys.platform == "linux":
            with pytest.raises(TimeoutError):
                _hub_connection._open_one_of("hub.invalid", 80, 0.1)


@pytest.mark.parametrize(
    ("endpoint", "environment", "door"),
    [
        ("https://huggingface.co", {}, ("huggingface.co", 443)),
        ("http://mirror.local:8080/hub", {}, ("mirror.local", 8080)),
        ("https://huggingface.co", {"https_proxy": "http://proxy.local:3128"}, ("proxy.local", 3128)),
        ("https://huggingface.co", {"HTTPS_PROXY": "proxy.local:3128"}, ("proxy.local", 3128)),
        ("https://huggingface.co", {"all_proxy": "socks5://name:word@proxy.local"}, ("proxy.local", 1080)),
        ("https://huggingface.co", {"http_proxy": "http://proxy.local:3128"}, ("huggingface.co", 443)),
        ("http://127.0.0.1:80", {"http_proxy": "http://proxy.local", "no_proxy": "127.0.0.1"}, ("127.0.0.1", 80)),
    ],
)
def test_the_door_is_that_of_the_proxy_where_there_is_one(endpoint, environment, door, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert _hub_connection._door(endpoint) == door


def test_who_asks_the_hub_in_a_way_of_their_own_is_not_second_guessed(without_network):
    without_network("refused")
    huggingface_hub.set_client_factory(huggingface_hub.utils._http.default_client_factory)
    assert _hub_connection.why_unreachable() is not None
    huggingface_hub.set_client_factory(lambda: huggingface_hub.utils._http.default_client_factory())
    try:
        assert _hub_connection.why_unreachable() is None
    finally:
        huggingface_hub.set_client_factory(huggingface_hub.utils._http.default_client_factory)


def test_a_slow_network_may_be_given_more_time(monkeypatch):
    monkeypatch.delenv("HF_HUB_ETAG_TIMEOUT", raising=False)
    assert _hub_connection._patience() == pytest.approx(_hub_connection.WAITS)
    assert _hub_connection.WAITS < 1.5  # without a network, nobody waits for longer
    for text, seconds in [("30", 30.0), ("0.1", _hub_connection.WAITS), ("many", _hub_connection.WAITS)]:
        monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", text)
        assert _hub_connection._patience() == pytest.approx(seconds)
