"""A service that says what is on a picture: FastAPI around a model that `sktransfer.save` wrote.

    MODEL=model.safetensors uvicorn --app-dir examples/serving app:app

`POST /predict` takes up to 32 pictures in the form field `pictures` and returns one answer per picture. `GET /health`
says that the service is up. A picture that cannot be read gets status 422 and a sentence that says why.
"""

import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio.to_thread
import torch
from fastapi import FastAPI, File, HTTPException, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from PIL import Image
from sklearn.base import is_classifier

import sktransfer

MAX_PICTURES = 32  # per request
MAX_BYTES = 32 * 2**20  # per request
N_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_model(path: str) -> Any:
    """Load a classifier and try it on a grey picture, so that the first request does not wait.

    Parameters
    ----------
    path : str
        A file that `sktransfer.save` wrote. Loading it runs no code from the file.

    Returns
    -------
    estimator
        With `predict_proba` and `classes_`.

    Raises
    ------
    SystemExit
        With a sentence, if the file cannot be loaded, or the model does not choose one class per picture.
    """
    if not path:
        raise SystemExit("Got no model; expected a file that sktransfer.save wrote. Set MODEL to its path.")
    try:
        model = sktransfer.load(path)
    except (OSError, ValueError, ImportError) as error:
        raise SystemExit(str(error)) from None
    if not is_classifier(model) or not hasattr(model, "predict_proba"):
        raise SystemExit(f"Got a {type(model).__name__} in {path}; expected a fitted classifier with predict_proba.")
    grey = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(grey, "PNG")
    try:
        single = model.predict([grey.getvalue()]).ndim == 1
    except Exception as error:
        raise SystemExit(f"Got a model in {path} that cannot classify a picture. {error}") from None
    if not single:
        raise SystemExit(f"Got a model in {path} with several labels per picture; expected one class per picture.")
    return model


@asynccontextmanager
async def one_picture_per_core(app: FastAPI) -> AsyncIterator[None]:
    """Let as many requests compute at once as there are cores; the others wait for their turn."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = N_CORES
    yield


# Each request computes on one core. With more threads per request, all of them wait for the slowest in every layer.
torch.set_num_threads(1)
# Each picture comes once. What is kept of it for a next time would only fill memory.
sktransfer.set_cache_limit(memory=0)
model = load_model(os.environ.get("MODEL", ""))
app = FastAPI(title="What is on this picture?", version=sktransfer.__version__, lifespan=one_picture_per_core)


@app.middleware("http")
async def refuse_long_requests(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Refuse what is too long before it is read."""
    length = request.headers.get("content-length")
    if request.method == "POST" and length is None:
        return JSONResponse({"detail": "Got a request without Content-Length; expected its length in bytes."}, 411)
    if length is not None and int(length) > MAX_BYTES:
        words = f"Got {length} bytes; expected at most {MAX_BYTES}. Send fewer pictures per request."
        return JSONResponse({"detail": words}, 413)
    return await call_next(request)


@app.exception_handler(RequestValidationError)
async def refuse_other_requests(request: Request, error: RequestValidationError) -> JSONResponse:
    """Say what a request must hold."""
    words = f"Got a request without pictures, or with too many; expected 1 to {MAX_PICTURES} files named 'pictures'."
    return JSONResponse({"detail": f"{words} Send them as a multipart form."}, 422)


@app.get("/health")
async def health() -> dict[str, Any]:
    """Say that the service is up, and which classes it knows. This never waits for a prediction."""
    return {"status": "ok", "classes": model.classes_.tolist(), "sktransfer": sktransfer.__version__}


# A plain `def`: FastAPI runs it in a thread, and the event loop goes on with other requests.
@app.post("/predict")
def predict(pictures: Annotated[list[UploadFile], File(max_length=MAX_PICTURES)]) -> dict[str, Any]:
    """Return the most likely class of each picture and the probabilities of all classes, in the order of upload."""
    contents = [picture.file.read() for picture in pictures]
    try:
        probabilities = model.predict_proba(contents)
    except ValueError as error:  # a damaged picture, or a file of another kind: the message names its row
        raise HTTPException(422, str(error)) from error
    labels = model.classes_.tolist()
    return {
        "predictions": [
            {
                "filename": picture.filename,
                "class": labels[row.argmax()],
                "probabilities": dict(zip(map(str, labels), row.tolist(), strict=True)),
            }
            for picture, row in zip(pictures, probabilities, strict=True)
        ]
    }
