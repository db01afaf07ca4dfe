"""Model files that somebody made up who knows the format: right checksums around descriptions of every wrong kind.

Run as a script, it loads each file of a folder under watch, and prints what happened: a line of JSON for each.
"""

import copy
import io
import json
import os
import sys
import time
import zipfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from safetensors import safe_open

from sktransfer._files._json_values import from_plain, to_plain
from sktransfer._files._model_file import write_model

# What stands in place of each field of a description, one after another.
WRONG = (None, 10**30, "hf:other/model", {})

BERT = {"vocab_size": 29, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}

NAMES = (
    "hf:/etc", "hf:other/model", "hf:", "hf:~nobody_of_this_name/x", "hf:TRAP", "hf:../TRAP", "timm:hf-hub:other/model",
    "timm:local-dir:TRAP", "timm:resnet18.hf-hub:x", "timm:", "resnet18", "TRAP", "\ud800", "a\0b", "x" * 10_000,
)  # fmt: skip

CONFIGS = {
    "code": {"auto_map": {"AutoModel": "trap--trap.Evil", "AutoConfig": "trap.Evil"}},
    "code of a kind without a class": {"model_type": "clip_text_model", "auto_map": {"AutoModel": "other/x--trap.E"}},
    "place": {"_name_or_path": "TRAP", "name_or_path": "other/model"},
    "kernel": {"attn_implementation": "other/kernel", "_attn_implementation": "other/kernel"},
    "another network": {"use_timm_backbone": True, "backbone": "resnet18", "use_pretrained_backbone": True},
    "nested": {"model_type": "encoder-decoder", "encoder": {"model_type": "bert"}, "decoder": {"model_type": "gpt2"}},
    "nested code": {"text_config": {"auto_map": {"AutoModel": "trap.Evil"}, "model_type": "trap"}},
    "vision": {"model_type": "vision-encoder-decoder", "encoder": "TRAP", "decoder": "other/model"},
    "timm": {"model_type": "timm_backbone", "backbone": "hf-hub:other/model", "use_pretrained_backbone": True},
    "unknown": {"model_type": "os.system"},
    "module": {"model_type": "..trap"},
    "class": {"architectures": ["trap.Evil"], "tokenizer_class": "trap.Evil", "transformers_weights": "TRAP"},
    "quantized": {"quantization_config": {"quant_method": "trap", "modules": "TRAP"}},
    "words": {"hidden_size": "TRAP", "num_hidden_layers": {"TRAP": 1}},
}  # fmt: skip

# What claims more than there is, by the change of the configuration.
LARGE_CONFIGS = {
    "layers": {"num_hidden_layers": 200_000},
    "very many layers": {"num_hidden_layers": 10**9},
    "width": {"hidden_size": 65_536, "num_attention_heads": 2, "intermediate_size": 65_536},
    "vocabulary": {"vocab_size": 2 * 10**9},
    "positions": {"max_position_embeddings": 10**9},
    "labels": {"num_labels": 10**8},
    "whole number": {"hidden_size": 10**18},
    "squares": {"model_type": "gpt2", "n_positions": 10**5, "n_embd": 16, "n_layer": 3, "n_head": 2},
}


def read(file):
    with safe_open(file, "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        description = json.loads(opened.metadata()["sktransfer model"].partition("\n")[2])
    del description["tensors"]
    return description, tensors


def fields(description):
    """Yield the path of each field of a description, as keys and numbers, down to what a source says."""
    for key in description:
        yield (key,)
    model = description["models"][0]
    for key in model:
        yield ("models", 0, key)
    for part in ("parameters", "attributes"):
        yield from (("models", 0, part, key) for key in model[part])


def replaced(description, path, value):
    changed = copy.deepcopy(description)
    held = changed
    for step in path[:-1]:
        held = held[step]
    if value is KeyError:
        del held[path[-1]]
    else:
        held[path[-1]] = value
    return changed


def with_record(description, name, change):
    """Change the record of an attribute, which stands as a list of pairs in a file."""
    changed = copy.deepcopy(description)
    attributes = changed["models"][0]["attributes"]
    record = from_plain(attributes[name])
    change(record)
    attributes[name] = to_plain(record)
    return changed


def record_changes(record, path=()):
    """Yield the path and the value of each wrong field of a record, its own records among them."""
    for key, value in record.items():
        for wrong in (KeyError, *WRONG):
            yield (*path, key), wrong
        if isinstance(value, dict) and key in ("source", "preprocessing"):
            yield from record_changes(value, (*path, key))


def set_in(record, path, value):
    for step in path[:-1]:
        record = record[step]
    if value is KeyError:
        record.pop(path[-1], None)
    else:
        record[path[-1]] = value


def descriptions_of(file, each_field):
    """Yield a name and a description for each thing that can be wrong with one."""
    description = read(file)[0]
    attributes = description["models"][0]["attributes"]
    for path in fields(description) if each_field else ():
        for value in (KeyError, "/etc") if path[2:3] == ("parameters",) else (KeyError, *WRONG):
            yield f"{'.'.join(map(str, path))} = {value!r:.20}", replaced(description, path, value)
    for name in ("backbone_", "_reader", "net_") if each_field else ():
        record = from_plain(attributes[name]) if name in attributes else {}
        for path, value in record_changes(record):
            yield (
                f"{name}.{'.'.join(path)} = {value!r:.20}",
                with_record(description, name, lambda one, path=path, value=value: set_in(one, path, value)),
            )
    record = from_plain(attributes["backbone_"])
    for kind in ("hf", "timm", "torchvision", "own"):
        for name in NAMES if each_field or record["kind"] != "hf" else ():

            def rename(one, kind=kind, name=name):
                one.update(kind=kind, source={"name": name, "weights": "DEFAULT", "seed": 0})

            yield f"{kind} {name[:30]!r}", with_record(description, "backbone_", rename)
    for weights in ("TRAP/model.safetensors", "https://example.org/x.pth", "other/model", "/dev/zero", "x" * 10_000):
        wrong = lambda one, weights=weights: one["source"].update(weights=weights)  # noqa: E731
        yield f"weights {weights[:30]}", with_record(description, "backbone_", wrong)
    if record["kind"] == "hf":
        for name, config in CONFIGS.items():
            wrong = lambda one, config=config: one["source"]["config"].update(config)  # noqa: E731
            yield f"config {name}", with_record(description, "backbone_", wrong)


def huge_descriptions_of(file):
    """Yield a name and a description for each thing that claims more than there is."""
    description = read(file)[0]
    attributes = description["models"][0]["attributes"]
    arrays = {
        "letters": {"type": "array", "dtype": "<U1000000000", "shape": [2], "items": ["a", "b"]},
        "bytes": {"type": "array", "dtype": "|S4000000000", "shape": [1], "items": [{"type": "bytes", "value": ""}]},
        "many letters": {"type": "array", "dtype": "<U1000000", "shape": [1000], "items": ["a"] * 1000},
        "a scalar": {"type": "scalar", "dtype": "<U1000000000", "value": "a"},
        "a shape": {"type": "array", "dtype": "<i8", "shape": [100_000_000], "items": [1, 2]},
        "nothing": {"type": "array", "dtype": "<i8", "shape": [10**8, 0], "items": []},
        "parts": {"type": "array", "dtype": "(1000000000,)<i8", "shape": [1], "items": [1]},
        "raw": {"type": "array", "dtype": "V1000000000", "shape": [1], "items": [1]},
        "deep": json.loads("[" * 900 + "]" * 900),
        "many": {"type": "array", "dtype": "<i8", "shape": [200_000], "items": list(range(200_000))},
    }
    for name, plain in arrays.items():
        yield f"classes of {name}", replaced(description, ("models", 0, "attributes", "classes_"), plain)
    if "net_" in attributes:
        nets = {
            "layers": {"hidden_layer_sizes": [1] * 200_000},
            "width": {"hidden_layer_sizes": [65_536]},
            "features": {"n_features": 10**12},
            "classes": {"n_classes": 10**8},
        }
        for name, change in nets.items():
            yield f"net {name}", with_record(description, "net_", lambda one, change=change: one.update(change))
    record = from_plain(attributes["backbone_"])
    if record["kind"] == "hf":
        for name, config in LARGE_CONFIGS.items():
            wrong = lambda one, config=config: one["source"]["config"].update(config)  # noqa: E731
            yield f"config {name}", with_record(description, "backbone_", wrong)
        for name in ("max_length", "vocabulary"):
            wrong = lambda one, name=name: one["preprocessing"].update({name: 10**12})  # noqa: E731
            yield f"texts {name}", with_record(description, "backbone_", wrong)
    sounds = {
        "kind": "sounds", "extractor": "WhisperFeatureExtractor", "argument": "input_features", "sampling_rate": 16_000,
        "window": 10**11, "settings": json.dumps({"feature_size": 10**6, "n_fft": 10**6}),
    }  # fmt: skip
    for window in (10**11, 16_000):

        def sound(one, window=window):
            one.update(kind="hf", preprocessing={**sounds, "window": window})
            one["source"] = {"name": "hf:x", "weights": None, "config": {"model_type": "whisper"}}

        yield f"sounds {window}", with_record(description, "backbone_", sound)
    for name in ("vit_h_14", "regnet_y_128gf"):

        def large(one, name=name):
            one.update(kind="torchvision", source={"name": name, "weights": None, "seed": 0})
            one["preprocessing"] = {"kind": "images"}

        yield f"network {name}", with_record(description, "backbone_", large)


def archives():
    """Yield a name and the bytes of archives that claim, or unpack to, more than they hold."""

    def made(parts, packing=zipfile.ZIP_STORED):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", packing) as archive:
            for name, content in parts.items():
                archive.writestr(name, content)
        return file.getvalue()

    def header(text):
        text = text.ljust(117).encode() + b"\n"
        return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text

    zeros = bytes(2**28)
    yield "a packed part", made({"schema.json": zeros}, zipfile.ZIP_DEFLATED)
    yield "a part packed otherwise", made({"schema.json": zeros[: 2**20]}, zipfile.ZIP_BZIP2)
    inner = made({"data.npy": zeros, "more.npy": zeros}, zipfile.ZIP_DEFLATED)
    yield "a packed matrix", made({"schema.json": "{}", "1.npz": inner})
    yield "a matrix in a matrix", made({"1.npz": made({"2.npz": made({"3.npz": inner})})})
    for shape in ("(10000000000,)", "(100000, 100000)"):
        yield (
            f"an array of {shape}",
            made({"1.npy": header(f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}")}),
        )
    yield (
        "an array of letters",
        made({"1.npy": header("{'descr': '<U1000000000', 'fortran_order': False, 'shape': (1,)}")}),
    )
    whole = bytearray(made({"schema.json": "{}"}))
    place = whole.index(b"PK\x01\x02")
    whole[place + 24 : place + 28] = (2**31).to_bytes(4, "little")
    yield "a part that claims", bytes(whole)
    yield "deep", made({"schema.json": "[" * 100_000 + "]" * 100_000})
    yield "no archive", b"PK" * 100
    yield "nothing", b""


def write_corpus(files, folder, trap, each_field):
    """Write crafted models of some good ones to a folder, with paths into a trap in them."""
    models = {
        f"{file.stem}: {name}": (json.loads(json.dumps(description).replace("TRAP", str(trap))), read(file)[1])
        for file in files
        for name, description in descriptions_of(file, file.stem in each_field)
    }
    write_all(models, folder)


def write_huge_corpus(files, folder):
    """Write all models that claim more than they hold to a folder."""
    models = {
        f"{file.stem}: {name}": (description, read(file)[1])
        for file in files
        for name, description in huge_descriptions_of(file)
    }
    description, tensors = read(files[0])
    for name, content in archives():
        around = torch.from_numpy(np.frombuffer(content or b"\0", dtype=np.uint8).copy())
        models[f"around: {name}"] = description, {**tensors, "around": around}
    write_all(models, folder)


def write_all(models, folder):
    folder.mkdir(exist_ok=True)
    names = {}
    with mock.patch("os.fsync"):
        for name, (description, tensors) in models.items():
            place = f"{len(names)}.safetensors"
            write_model(folder / place, description, tensors)
            names[place] = name
    (folder / "names.json").write_text(json.dumps(names))


# Under watch


def watch(folder, trap):
    """Load each file, and print what happened, with what was opened and asked for."""
    import resource
    import socket

    import sktransfer

    torch.set_num_threads(1)

    ours = Path(sktransfer.__file__).parent  # on no path of Python's, where it is installed for editing
    libraries = tuple({str(Path(one).resolve()) for one in (*sys.path, sys.prefix, sys.base_prefix, ours) if one})
    seen = []

    def look(event, args):
        if event in ("open", "os.listdir", "os.scandir"):
            place = os.path.realpath(os.fspath(args[0])) if isinstance(args[0], str | bytes | os.PathLike) else ""
            mine = place == current or place.startswith(("/proc", "/sys", "/dev/null", "/dev/urandom"))
            if not mine and not (place.startswith(libraries) and str(trap) not in place):
                seen.append(f"{event} {place}")
        elif event.startswith(
            ("socket.", "subprocess.", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork")
        ):
            seen.append(f"{event} {args!r:.100}")

    def refuse(*args, **kwargs):
        seen.append("socket")
        raise OSError("no network here")

    current = ""
    socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
    sys.stdin = io.StringIO("y\n" * 1000)
    import skops.io  # noqa: F401
    from networks import tiny_vectors

    # What is loaded once is not loaded again, and what an error needs is there.
    for file in sorted((folder.parent / "good").glob("*")):
        sktransfer.load(file, backbone=tiny_vectors)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, resource.RLIM_INFINITY))
    names = json.loads((folder / "names.json").read_text())
    sys.addaudithook(look)
    for place, name in names.items():
        current = os.path.realpath(folder / place)
        seen.clear()
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        try:
            sktransfer.load(current, backbone=tiny_vectors)
            said = "loaded"
        except ValueError as error:
            said = str(error)
        except Exception as error:
            said = f"RAW {type(error).__name__}: {error}"
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        what = {"name": name, "said": said, "seconds": round(time.process_time() - start, 2), "MB": grown, "seen": seen}
        print(json.dumps(what), flush=True)


if __name__ == "__main__":
    watch(Path(sys.argv[1]), Path(sys.argv[2]))
