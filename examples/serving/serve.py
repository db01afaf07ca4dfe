"""Start the picture service on this machine.

    python examples/serving/serve.py --model model.safetensors --port 8000

Without `--model`, a tiny model is made first, in seconds and offline: it tells horizontal stripes from vertical ones.
Then ask from another terminal:

    curl -F pictures=@ant.jpg -F pictures=@bee.jpg http://127.0.0.1:8000/predict
"""

import argparse
import errno
import os
import socket
import tempfile
from pathlib import Path

HOST = "127.0.0.1"  # this machine alone: whoever opens the service to others puts a proxy with TLS in front


def make_tiny_model(path: Path) -> None:
    """Fit a random network to made-up stripes, and save the model.

    Parameters
    ----------
    path : Path
        The file to write.
    """
    import numpy as np

    import sktransfer

    random = np.random.default_rng(0)
    rows = random.integers(0, 256, size=(12, 16, 1, 3)).repeat(16, axis=2)
    stripes = np.concatenate([rows, rows.transpose(0, 2, 1, 3)]).repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)
    labels = ["horizontal"] * 12 + ["vertical"] * 12
    model = sktransfer.FineTunedClassifier("shufflenet_v2_x0_5", weights=None, random_state=0).fit(stripes, labels)
    sktransfer.save(model, path)


def listen(port: int) -> socket.socket:
    """Take a port.

    Parameters
    ----------
    port : int
        From 0 to 65535; 0 is any free port.

    Returns
    -------
    socket
        It keeps the port, so nobody else can take it before the service starts.

    Raises
    ------
    SystemExit
        With a sentence, if the port cannot be had.
    """
    if not 0 <= port <= 65535:
        raise SystemExit(f"Got --port {port}; expected a number from 0 to 65535. With 0, a free port is chosen.")
    taken = socket.socket()
    if os.name == "posix":  # after a stop, the port can be had again at once
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((HOST, port))
        taken.listen()
    except OSError as error:
        why = "another program uses" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        wanted = "expected a free port. Choose another number, or 0 for any free port."
        raise SystemExit(f"Got --port {port}, which {why}; {wanted}") from None
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a file that sktransfer.save wrote (default: make a tiny model)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
    options = parser.parse_args()
    with listen(options.port) as taken, tempfile.TemporaryDirectory() as folder:
        path = options.model
        if path is None:
            path = Path(folder) / "stripes.safetensors"
            make_tiny_model(path)
        os.environ["MODEL"] = str(path)
        try:
            import uvicorn
            from app import app
        except ModuleNotFoundError as error:
            missing = f"Got no package {error.name!r}, which the service needs."
            raise SystemExit(f'{missing} Install it: pip install "sktransfer[serving]"') from None

        print(f"Serving {path.name} on http://{HOST}:{taken.getsockname()[1]}. Stop it with Ctrl-C.", flush=True)
        config = uvicorn.Config(app, log_level="warning", limit_concurrency=64, timeout_graceful_shutdown=10)
        uvicorn.Server(config).run(sockets=[taken])


if __name__ == "__main__":
    main()
