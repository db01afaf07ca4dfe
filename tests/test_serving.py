"""The serving example: a service in a process of its own, asked over HTTP as its users do."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sktransfer
from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor

httpx = pytest.importorskip("httpx", reason="the service is asked by it: pip install httpx")
for needed in ("fastapi", "uvicorn", "python_multipart"):
    pytest.importorskip(needed, reason='the service needs it: pip install "sktransfer[serving]"')

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SERVE = EXAMPLES / "serving" / "serve.py"
NETWORK = {"backbone": "shufflenet_v2_x0_5", "weights": None, "random_state": 0}
ENVIRONMENT = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}


def encoded(pixels, kind="JPEG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def model(pictures):
    X, y = pictures
    return FineTunedClassifier(**NETWORK).fit(X, y)


@pytest.fixture(scope="module")
def files(pictures):
    return [encoded(pixels, kind) for pixels, kind in zip(pictures[0], ["JPEG", "PNG", "WEBP", "BMP"] * 6, strict=True)]


class Service:
    """The example, started on a free port with a model."""

    def __init__(self, model, folder):
        sktransfer.save(model, folder / "model.safetensors")
        command = [sys.executable, str(SERVE), "--port", "0", "--model", str(folder / "model.safetensors")]
        with open(folder / "stderr", "w") as errors:  # noqa: PTH123
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=ENVIRONMENT, text=True)
        line = self.process.stdout.readline()  # empty where the process ends before it serves
        assert line, (folder / "stderr").read_text()
        self.url = re.search(r"on (http://127\.0\.0\.1:\d+)\.", line).group(1)
        self.port = self.url.rpartition(":")[2]

    def ask(self, files, client=httpx):
        uploads = [("pictures", (f"{number}", file)) for number, file in enumerate(files)]
        return client.post(f"{self.url}/predict", files=uploads, timeout=300)

    def megabytes(self):
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def stop(self):
        self.process.terminate()
        self.process.stdout.close()
        self.process.wait(timeout=300)


@pytest.fixture(scope="module")
def service(model, tmp_path_factory):
    started = Service(model, tmp_path_factory.mktemp("service"))
    yield started
    started.stop()


def probabilities(answer, classes):
    assert answer.status_code == 200, answer.text
    return np.array([[one["probabilities"][name] for name in classes] for one in answer.json()["predictions"]])


def test_answers_are_those_of_predict_proba_in_the_order_of_the_pictures(service, model, files):
    answer = service.ask(files)
    np.testing.assert_allclose(probabilities(answer, model.classes_), model.predict_proba(files), atol=1e-6)
    assert [one["class"] for one in answer.json()["predictions"]] == model.predict(files).tolist()
    assert [one["filename"] for one in answer.json()["predictions"]] == [str(number) for number in range(len(files))]


def test_eight_clients_at_once_each_get_their_own_answers(service, model, files):
    expected, begin = model.predict_proba(files), threading.Barrier(8)

    def ask(start):
        begin.wait(timeout=300)
        with httpx.Client() as client:
            return [probabilities(service.ask([files[row]], client), model.classes_)[0] for row in range(start, 24, 8)]

    with ThreadPoolExecutor(8) as threads:
        for start, answers in enumerate(threads.map(ask, range(8))):
            np.testing.assert_allclose(answers, expected[start::8], atol=1e-5)


def bomb():
    """Return the beginning of a PNG that claims 60,000 x 60,000 pixels."""
    png = bytearray(encoded(np.zeros((8, 8, 3), np.uint8), "PNG"))
    png[16:24] = (60_000).to_bytes(4, "big") * 2
    return bytes(png)


DAMAGED = {
    "cut off": lambda file: file[: len(file) // 2],
    "empty": lambda file: b"",
    "a text": lambda file: b"no picture at all",
    "zeros": lambda file: bytes(len(file)),
    "a page": lambda file: b"<!doctype html><html></html>",
    "a bomb": lambda file: bomb(),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_picture_gets_422_and_a_sentence_that_names_its_row(service, files, damage):
    answer = service.ask([files[0], DAMAGED[damage](files[0]), files[1]])
    assert answer.status_code == 422, answer.text
    assert re.match(r"Got .*row 1.*; expected ", answer.json()["detail"]), answer.text
    assert service.ask(files[:1]).status_code == 200


def test_requests_that_are_too_many_too_long_or_of_unknown_length_are_refused(service, files):
    without = service.ask([])
    other_name = httpx.post(f"{service.url}/predict", files={"picture": files[0]}, timeout=300)
    no_file = httpx.post(f"{service.url}/predict", data={"pictures": "ant.jpg"}, timeout=300)
    many = service.ask(files + files)
    long = service.ask([bytes(33 * 2**20)])
    pieces = httpx.post(f"{service.url}/predict", content=(piece for piece in [b"a"]), timeout=300)
    answers = [without, other_name, no_file, many, long, pieces]
    assert [answer.status_code for answer in answers] == [422, 422, 422, 422, 413, 411]
    assert all(re.match(r"Got .*; expected ", answer.json()["detail"]) for answer in answers)


def test_connections_that_are_too_many_are_refused_and_the_service_goes_on(service):
    with ExitStack() as opened:
        for _ in range(64):
            opened.enter_context(socket.create_connection(("127.0.0.1", int(service.port)), timeout=300))
        assert httpx.get(f"{service.url}/health", timeout=300).status_code == 503
    while httpx.get(f"{service.url}/health", timeout=300).status_code != 200:  # until it has seen that they are closed
        pass


def test_health_names_the_classes(service, model):
    answer = httpx.get(f"{service.url}/health", timeout=300).json()
    assert answer == {"status": "ok", "classes": model.classes_.tolist(), "sktransfer": sktransfer.__version__}


def refused(*arguments):
    done = subprocess.run(
        [sys.executable, str(SERVE), *arguments], capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"Got [^\n]+\n", done.stderr), done.stderr
    return done.stderr


def test_a_port_in_use_is_said_in_a_sentence(service):
    words = refused("--port", service.port)
    assert words == (
        f"Got --port {service.port}, which another program uses; expected a free port. "
        "Choose another number, or 0 for any free port.\n"
    )


def test_a_port_that_is_none_is_said_in_a_sentence():
    assert "expected a number from 0 to 65535" in refused("--port", "65536")


@pytest.mark.exhaustive
def test_a_model_that_is_not_there_is_said_in_a_sentence(tmp_path):
    words = refused("--model", str(tmp_path / "model.safetensors"), "--port", "0")
    assert "which is not a file" in words


LOAD = """
import sys
from app import load_model

for path in sys.argv[1:]:
    try:
        load_model(path)
    except SystemExit as stop:
        print(stop)
"""


@pytest.mark.exhaustive
def test_models_that_do_not_choose_one_class_per_picture_are_said_in_a_sentence_each(model, tmp_path, pictures):
    X, y = pictures
    misfits = {
        "regressor": (FineTunedRegressor(**NETWORK).fit(X, np.arange(24.0)), "expected a fitted classifier"),
        "features": (PretrainedFeatureExtractor(**NETWORK).fit(X), "expected a fitted classifier"),
        "labels": (FineTunedClassifier(**NETWORK).fit(X, np.eye(24, 3, dtype=int)), "several labels per picture"),
        "unfitted": (FineTunedClassifier(**NETWORK), "not fitted"),
        "vectors": (make_pipeline(StandardScaler(), LogisticRegression()).fit(X.reshape(24, -1), y), "cannot classify"),
    }
    for name, (estimator, _) in misfits.items():
        sktransfer.save(estimator, tmp_path / name)
    sktransfer.save(model, tmp_path / "model")
    command = [sys.executable, "-c", LOAD, *(str(tmp_path / name) for name in misfits)]
    environment = {**ENVIRONMENT, "MODEL": str(tmp_path / "model")}
    done = subprocess.run(command, cwd=SERVE.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for sentence, (_, words) in zip(done.stdout.splitlines(), misfits.values(), strict=True):
        assert sentence.startswith("Got ")
        assert words in sentence


@pytest.mark.exhaustive
def test_the_commands_of_the_dockerfile_serve_and_check_the_health(model, tmp_path):
    text = (SERVE.parent / "Dockerfile").read_text(encoding="utf-8")
    health, serve = map(json.loads, re.findall(r"CMD (\[.*\])$", text, re.MULTILINE))
    sktransfer.save(model, tmp_path / "model.safetensors")
    command = [{"8000": "0", "0.0.0.0": "127.0.0.1"}.get(word, word) for word in serve]
    environment = {**ENVIRONMENT, "MODEL": str(tmp_path / "model.safetensors")}
    with subprocess.Popen(
        [sys.executable, "-m", *command], cwd=SERVE.parent, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        lines = iter(process.stderr.readline, "")  # they end where the process does
        port = next(found.group(1) for line in lines if (found := re.search(r"http://127\.0\.0\.1:(\d+)", line)))
        check = [sys.executable, *(word.replace(":8000/", f":{port}/") for word in health[1:])]
        healthy = subprocess.run(check, check=False).returncode
        process.terminate()
    assert healthy == 0
    assert subprocess.run(check, check=False, capture_output=True).returncode != 0


@pytest.mark.exhaustive
def test_without_a_model_a_tiny_one_is_made_that_knows_stripes_and_ctrl_c_stops_it():
    command = [sys.executable, str(SERVE), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT, text=True) as process:
        url = re.search(r"on (http://\S+\d)\.", process.stdout.readline()).group(1)
        rows = np.random.default_rng(1).integers(0, 256, (20, 1, 3)).repeat(30, axis=1).astype(np.uint8)
        uploads = [("pictures", encoded(pixels)) for pixels in (rows, rows.transpose(1, 0, 2))]
        answer = httpx.post(f"{url}/predict", files=uploads, timeout=300).json()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=300) in (0, -signal.SIGINT)
    assert [one["class"] for one in answer["predictions"]] == ["horizontal", "vertical"]


@pytest.mark.exhaustive
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell resident memory so")
def test_two_thousand_requests_do_not_fill_memory(service):
    """After 400 requests, resident memory grows by less than 8 MiB in 2,000 more, of which a tenth are damaged."""
    random = np.random.default_rng(0)
    files = [encoded(random.integers(0, 256, (48, 64, 3), dtype=np.uint8)) for _ in range(100)]
    broken = files[0][:300]

    def ask(n):
        with httpx.Client() as client:
            sent = [broken if number % 10 == 0 else files[number % 100] for number in range(n)]
            answers = [service.ask([file], client).status_code for file in sent]
        return answers.count(422), answers.count(200)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, [50] * 8))
        before = service.megabytes()
        counts = np.sum(list(threads.map(ask, [250] * 8)), axis=0)
        after = service.megabytes()
    assert counts.tolist() == [8 * 25, 8 * 225]
    assert after - before < 8, f"{before:.0f} MiB after 400 requests, {after:.0f} MiB after 2,400"
