"""Features of a ViT-S/16 of transformers, in bfloat16: JPEGs in, features out, against the library's own pipeline.

Weights are random and the model is a folder that is made here: speed does not depend on what weights are.
"""

import numpy as np
import torch
from measuring import Record, Setting, in_turns, rates

from sktransfer import PretrainedFeatureExtractor

# Batches that the pipeline is tried with; the fastest is measured.
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
    ours = PretrainedFeatureExtractor(f"hf:{folder}", precision="bfloat16", feature_cache=None).fit(paths[:1])
    pipeline = transformers.pipeline(
        "image-feature-extraction", str(folder), dtype=torch.bfloat16, device="cpu", pool=True
    )
    few = paths[: setting.size(64, 8)]
    tried = {size: lambda size=size: pipeline(few, batch_size=size) for size in BATCH_SIZES}
    pipeline(few[:8], batch_size=8)  # warms up
    ours.transform(few)
    seconds = in_turns(tried, 1)
    best = min(seconds, key=lambda size: seconds[size][0])
    tasks = {"ours": lambda: ours.transform(paths), "pipeline": lambda: pipeline(paths, batch_size=best)}
    speeds = {name: rates(len(paths), seconds) for name, seconds in in_turns(tasks, setting.repeats).items()}
    found, expected = ours.transform(paths[:16]), np.array(pipeline(paths[:16])).reshape(16, -1)
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    return [
        Record(
            f"ViT-S/16 of transformers, features of {len(paths)} JPEGs, bfloat16",
            "images/s",
            speeds["ours"],
            speeds["pipeline"],
            f"pipeline, batches of {best}",
            note="random weights; the pipeline with the batch size of 1, 8 and 32 that is fastest",
            label="Features of JPEG files by a ViT, bfloat16",
        ),
        Record(
            "hf: features, bfloat16: least cosine to the peer's", "cosine", [float(cosine.min())], peer_name="pipeline"
        ),
    ]
