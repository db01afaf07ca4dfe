"""Features of a ViT-S/16 of transformers: JPEGs in, features out, against the library's own pipeline at its best.

The pipeline is tried in float32 and bfloat16, with three sizes of batches; the fastest is compared, in turns, with the
precision that `precision="auto"` takes here. Weights are random and the model is a folder that is made here: speed does
not depend on what weights are.
"""

import numpy as np
import torch
from measuring import Record, Setting, in_turns, rates

from sktransfer import PretrainedFeatureExtractor
from sktransfer._computing._execution import multiplies_bfloat16

BATCH_SIZES = (1, 8, 32)


def hub_pictures(setting: Setting) -> list[Record]:
    import transformers

    folder = setting.pictures.folder / "vit_small"
    config = transformers.ViTConfig(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536
    )
    torch.manual_seed(0)
    transformers.ViTModel(config).save_pretrained(folder)
    transformers.ViTImageProcessor().save_pretrained(folder)
    paths = [str(path) for path in setting.pictures.distinct(setting.size(256, 16))]
    ours = PretrainedFeatureExtractor(f"hf:{folder}", device="cpu", feature_cache=None).fit(paths[:1])
    precision = "bfloat16" if multiplies_bfloat16(torch.device("cpu")) else "float32"
    pipelines = {
        name: transformers.pipeline(
            "image-feature-extraction", str(folder), dtype=getattr(torch, name), device="cpu", pool=True
        )
        for name in ("float32", "bfloat16")
    }
    few = paths[: setting.size(64, 8)]
    tried = {
        (name, size): lambda pipeline=pipeline, size=size: pipeline(few, batch_size=size)
        for name, pipeline in pipelines.items()
        for size in BATCH_SIZES
    }
    for pipeline in pipelines.values():
        pipeline(few[:8], batch_size=8)  # warms up
    ours.transform(few)
    seconds = in_turns(tried, 1)
    name, size = best = min(seconds, key=lambda way: seconds[way][0])
    pipeline = pipelines[name]
    tasks = {"ours": lambda: ours.transform(paths), "pipeline": lambda: pipeline(paths, batch_size=size)}
    speeds = {task: rates(len(paths), seconds) for task, seconds in in_turns(tasks, setting.repeats).items()}
    found, expected = ours.transform(paths[:16]), np.array(pipeline(paths[:16])).reshape(16, -1)
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    others = ", ".join(f"{way[0]} {way[1]}: {len(few) / spent:.1f}" for way, (spent,) in seconds.items() if way != best)
    return [
        Record(
            f"ViT-S/16 of transformers, features of {len(paths)} JPEGs, {precision}",
            "images/s",
            speeds["ours"],
            speeds["pipeline"],
            f"transformers' pipeline, {name}",
            note=f"random weights; the peer at its best (batches of {size}); tried once, in images/s: {others}",
            label=f"Features of JPEG files by a ViT, {precision}",
        ),
        Record(
            f"hf: features, {precision}: least cosine to the peer's",
            "cosine",
            [float(cosine.min())],
            peer_name=f"transformers' pipeline, {name}",
        ),
    ]
