"""Tiny networks of transformers, saved as folders, as whoever trained them would leave them."""

import json
from pathlib import Path

import numpy as np

WORDS = [
    "a", "an", "the", "film", "story", "is", "was", "good", "bad", "great", "dull", "very", "not", "and", "but", "of",
    "in", "it", "long", "short", "new", "old", "slow", "fun",
]  # fmt: skip
MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_SMALL = {
    "vocab_size": len(MARKS) + len(WORDS), "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 24, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip

# Families of networks for texts, and what their configurations have beside the usual.
TEXT_FAMILIES = {
    "bert": {},
    "distilbert": {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32},
    "roberta": {},
    "xlm-roberta": {},
    "albert": {"embedding_size": 8},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 8},
    "deberta-v2": {
        "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 4, "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
    },
    "modernbert": {"cls_token_id": 2, "sep_token_id": 3, "local_attention": 4, "global_attn_every_n_layers": 2},
    "gpt2": {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 24},
    "electra": {"embedding_size": 8},
    "mpnet": {},
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 3, "num_heads": 2},
    "mt5": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 3, "num_heads": 2},
    "umt5": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 3, "num_heads": 2},
    "llama": {"num_key_value_heads": 2},
    "gemma3_text": {"num_key_value_heads": 1, "head_dim": 8, "use_bidirectional_attention": True, "sliding_window": 4},
    "longformer": {"attention_window": 4},
    "convbert": {"embedding_size": 16},
    "ibert": {},
    "mixtral": {"num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2},
    "bloom": {"n_layer": 3, "n_head": 2},
}  # fmt: skip

SOUND_FAMILIES = {
    "whisper": {
        "d_model": 16, "encoder_layers": 3, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_layers": 1,
        "decoder_attention_heads": 2, "decoder_ffn_dim": 32, "num_mel_bins": 8, "max_source_positions": 50,
        "vocab_size": 29, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
        "max_target_positions": 16,
    },
    "wav2vec2": {
        "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
        "conv_dim": [8, 8], "conv_kernel": [10, 3], "conv_stride": [10, 4], "num_feat_extract_layers": 2,
        "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
    },
    "hubert": {
        "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
        "conv_dim": [8, 8], "conv_kernel": [10, 3], "conv_stride": [10, 4], "num_feat_extract_layers": 2,
        "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
    },
    "wavlm": {
        "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
        "conv_dim": [8, 8], "conv_kernel": [10, 3], "conv_stride": [10, 4], "num_feat_extract_layers": 2,
        "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "num_buckets": 8, "max_bucket_distance": 16,
    },
    "audio-spectrogram-transformer": {
        "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 8,
        "frequency_stride": 8, "time_stride": 8, "max_length": 32, "num_mel_bins": 16,
    },
    "wav2vec2-conformer": {
        "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
        "conv_dim": [8, 8], "conv_kernel": [10, 3], "conv_stride": [10, 4], "num_feat_extract_layers": 2,
        "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
    },
    "wav2vec2-bert": {
        "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
        "feature_projection_input_dim": 16,
    },
    "moonshine": {
        "hidden_size": 16, "intermediate_size": 32, "encoder_num_hidden_layers": 3, "decoder_num_hidden_layers": 1,
        "encoder_num_attention_heads": 2, "decoder_num_attention_heads": 2, "vocab_size": 29, "pad_token_id": 0,
    },
}  # fmt: skip


def make_tokenizer(folder, cls="[CLS]", sep="[SEP]", sep_is_largest=False, **settings):
    """Save a tokenizer that knows two dozen words, and puts marks around a text unless there are none."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    known = [*MARKS, *WORDS]
    if sep_is_largest:  # as in the tokenizer of CLIP
        known = [word for word in known if word != sep] + [sep]
    numbers = {word: number for number, word in enumerate(known)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if cls:
        marks = [(mark, numbers[mark]) for mark in (cls, sep)]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{cls} $A {sep}", special_tokens=marks)
    named = {
        "unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]",
    }  # fmt: skip
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{**named, "model_max_length": 20, **settings})
    fast.save_pretrained(folder)


def make_text_model(kind, folder, **settings):
    """Save a random network for texts with its tokenizer; return `"hf:"` and its folder."""
    import torch
    from transformers import AutoConfig, AutoModel

    folder = Path(folder)
    config = AutoConfig.for_model(kind, **{**_SMALL, **TEXT_FAMILIES[kind], **settings})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = _livened(AutoModel.from_config(config))
    network.save_pretrained(folder)
    causal = kind in ("gpt2", "llama", "bloom", "mixtral")
    make_tokenizer(folder, *(("", "") if causal else ("[CLS]", "[SEP]")))
    return f"hf:{folder}"


def _livened(network):
    """Give a new network larger weights: with those it has, its layers hardly do anything, and samples look alike."""
    import torch

    for parameter in network.parameters():
        if parameter.ndim > 1 and parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    return network


def make_sound_model(kind, folder, **settings):
    """Save a random network for sounds with its feature extractor; return `"hf:"` and its folder."""
    import torch
    import transformers
    from transformers import AutoConfig, AutoModel

    folder = Path(folder)
    config = AutoConfig.for_model(kind, **{**SOUND_FAMILIES[kind], **settings})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _livened(AutoModel.from_config(config)).save_pretrained(folder)
    extractors = {
        "whisper": lambda: transformers.WhisperFeatureExtractor(feature_size=8, sampling_rate=16000, chunk_length=1),
        "audio-spectrogram-transformer": lambda: transformers.ASTFeatureExtractor(num_mel_bins=16, max_length=32),
        "wav2vec2-bert": lambda: transformers.SeamlessM4TFeatureExtractor(feature_size=8, num_mel_bins=8, stride=2),
        "moonshine": lambda: transformers.Wav2Vec2FeatureExtractor(do_normalize=False),
    }
    usual = lambda: transformers.Wav2Vec2FeatureExtractor(sampling_rate=1000)  # noqa: E731
    extractors.get(kind, usual)().save_pretrained(folder)
    return f"hf:{folder}"


def make_sentence_model(folder, pooling="mean", normalize=True, new_names=False, kind="bert"):
    """Save a network for texts as sentence-transformers does, with its own pooling."""
    name = make_text_model(kind, folder)
    folder = Path(folder)
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 12, "do_lower_case": False}))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    names = {
        "mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens", "last": "lasttoken",
        "weightedmean": "weightedmean_tokens", "mean_sqrt_len": "mean_sqrt_len_tokens",
    }  # fmt: skip
    old = {f"pooling_mode_{one}": key == pooling for key, one in names.items()}
    renamed = {"last": "lasttoken", "mean_sqrt_len": "mean_sqrt_len_tokens"}
    new = {"embedding_dimension": 16, "pooling_mode": renamed.get(pooling, pooling)}
    config = new if new_names else {"word_embedding_dimension": 16, **old}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    return name


def add_sentence_layers(folder, *kinds, width=16, **settings):
    """Put layers behind the pooling of a model that `make_sentence_model` saved, with random weights."""
    import torch
    from safetensors.torch import save_file

    folder = Path(folder)
    modules = json.loads((folder / "modules.json").read_text())[:2]
    generator = torch.Generator().manual_seed(0)
    for number, kind in enumerate(kinds, start=2):
        path = f"{number}_{kind}"
        modules.append(
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        )
        (folder / path).mkdir(exist_ok=True)
        weights = {}
        if kind == "Dense":
            out = settings.get("out_features", width + 4)
            config = {"in_features": width, "out_features": out, "bias": True, **settings}
            weights = {"linear.weight": (out, width)}
            if config["bias"]:
                weights["linear.bias"] = (out,)
            if config.get("use_residual") and out != width:
                weights["residual.weight"] = (out, width)
            width = out
        elif kind == "LayerNorm":
            config, weights = {"dimension": width}, {"norm.weight": (width,), "norm.bias": (width,)}
        else:
            config = {"dropout": 0.3} if kind == "Dropout" else None
        if config is not None:
            (folder / path / "config.json").write_text(json.dumps(config))
        if weights:
            drawn = {name: torch.randn(shape, generator=generator) for name, shape in weights.items()}
            save_file(drawn, folder / path / "model.safetensors")
    (folder / "modules.json").write_text(json.dumps(modules))


def make_texts(n=24, seed=0):
    """Return texts of 2 to 12 words of two classes that differ in their words, and their labels."""
    rng = np.random.default_rng(seed)
    y = np.tile([0, 1], n // 2)
    texts = []
    for label in y:
        words = list(rng.choice(WORDS, size=rng.integers(1, 11)))
        words.insert(int(rng.integers(len(words) + 1)), ["bad", "good"][label])
        texts.append(" ".join(words))
    return texts, np.array(["poor", "fine"])[y]


def make_sounds(n=24, rate=1000, seed=0):
    """Return waveforms of 0.2 to 0.4 seconds of two classes that differ in pitch, and their labels."""
    rng = np.random.default_rng(seed)
    y = np.tile([0, 1], n // 2)
    sounds = []
    for label in y:
        time = np.arange(int(rate * rng.uniform(0.2, 0.4))) / rate
        tone = np.sin(2 * np.pi * (60, 180)[label] * time + rng.uniform(0, 6))
        sounds.append((tone * 0.4 + rng.normal(0, 0.05, len(time))).astype(np.float32))
    return sounds, np.array(["low", "high"])[y]


_STAGES = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 2, 1]}
_WINDOWED = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4}
_PATCHES = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
_PYRAMID = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]}

# Families of networks for pictures, and what their configurations have.
PICTURE_FAMILIES = {
    "vit": _PATCHES,
    "deit": _PATCHES,
    "dinov2": _PATCHES,
    "dinov2_with_registers": _PATCHES,
    "dinov3_vit": {**_PATCHES, "num_register_tokens": 2},
    "dinov3_convnext": _STAGES,
    "beit": _PATCHES,
    "data2vec-vision": _PATCHES,
    "vit_mae": _PATCHES,
    "vit_msn": _PATCHES,
    "ijepa": _PATCHES,
    "vitdet": _PATCHES,
    "dpt": {**_PATCHES, "backbone_out_indices": [0, 1, 2, 2], "neck_hidden_sizes": [8, 8, 8, 8]},
    "aimv2_vision_model": _PATCHES,
    "clip_vision_model": _PATCHES,
    "siglip_vision_model": _PATCHES,
    "swin": _WINDOWED,
    "swinv2": _WINDOWED,
    "convnext": _STAGES,
    "convnextv2": _STAGES,
    "resnet": {**_STAGES, "embedding_size": 8},
    "regnet": {**_STAGES, "embedding_size": 8, "groups_width": 8},
    "bit": {"embedding_size": 8, "hidden_sizes": [32] * 4, "depths": [1] * 4, "num_groups": 8},
    "efficientnet": {"width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320, "image_size": 32},
    "mobilenet_v1": {"depth_multiplier": 0.25, "image_size": 32},
    "mobilenet_v2": {"depth_multiplier": 0.25, "image_size": 32},
    "hiera": {"embed_dim": 8, "image_size": [64, 64], "depths": [1, 1, 2, 1], "num_heads": [1, 1, 2, 2]},
    "focalnet": {"embed_dim": 8, "depths": [1, 1, 1, 1], "image_size": 32},
    "poolformer": _STAGES,
    "pvt": {**_PYRAMID, "image_size": 32},
    "segformer": _PYRAMID,
    "levit": {
        "hidden_sizes": [16, 16, 32], "num_attention_heads": [2, 2, 2], "depths": [1, 1, 1], "key_dim": [8, 8, 8],
        "image_size": 64,
    },
    "swiftformer": {"embed_dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "image_size": 32},
    "hgnet_v2": {
        "embedding_size": 8, "depths": [1, 1, 2, 1], "hidden_sizes": [8, 16, 16, 16], "stem_channels": [3, 4, 8],
        "stage_in_channels": [8, 16, 16, 16], "stage_mid_channels": [4] * 4, "stage_out_channels": [16] * 4,
        "stage_num_blocks": [1, 1, 2, 1], "stage_numb_of_layers": [1] * 4,
    },
    "mobilevit": {"hidden_sizes": [16, 16, 24], "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32], "image_size": 64,
                  "num_attention_heads": 2},
}  # fmt: skip

TWO_TOWERS = ("clip", "siglip", "blip", "altclip", "chinese_clip", "metaclip_2", "aimv2", "groupvit")
# Those whose network for texts makes its vector in a way that can be repeated, and some that can for texts alone.
TEXT_TOWERS = (*TWO_TOWERS, "siglip2", "align", "flava", "clipseg", "owlvit", "owlv2", "xclip")
_TAKE_LARGEST = ("owlvit", "owlv2", "xclip")


def picture_network(kind, **settings):
    """Return a random network for pictures, and the side of its pictures."""
    import torch
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(kind, **{**PICTURE_FAMILIES[kind], **settings})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = _livened(AutoModel.from_config(config)).eval()
    side = getattr(config, "image_size", None) or 32
    return network, side if isinstance(side, int) else side[0]


def make_picture_model(kind, folder, processor=None, **settings):
    """Save a random network for pictures with its image processor; return `"hf:"` and its folder."""
    import transformers

    network, side = picture_network(kind, **settings)
    network.save_pretrained(folder)
    if processor is None:
        processor = transformers.ViTImageProcessor(size={"height": side, "width": side})
    processor.save_pretrained(folder)
    return f"hf:{folder}"


def make_two_towers(kind, folder, **tokenizer):
    """Save a random network of two towers with its tokenizer and its image processor."""
    import torch
    import transformers
    from transformers import CONFIG_MAPPING, AutoModel

    texts = {**_SMALL, "eos_token_id": 3, "sep_token_id": 3, "num_hidden_layers": 2, "encoder_hidden_size": 16}
    pictures = {**_PATCHES, "num_hidden_layers": 2}
    if kind == "groupvit":
        more = {"depths": [1, 1, 1], "num_group_tokens": [8, 4, 0], "num_output_groups": [8, 4, 0]}
        pictures |= {**more, "num_hidden_layers": 3}
    if kind == "align":
        pictures = PICTURE_FAMILIES["efficientnet"]
    parts = {"text_config": texts, "vision_config": pictures}
    if kind == "flava":
        parts = {"text_config": texts, "image_config": pictures, "multimodal_config": pictures}
    config = CONFIG_MAPPING[kind](**parts)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _livened(AutoModel.from_config(config)).save_pretrained(folder)
    if kind == "siglip2":  # whose tokenizer knows more marks
        tokenizer = {"bos_token": "[CLS]", "eos_token": "[SEP]", **tokenizer}
    make_tokenizer(folder, sep_is_largest=kind in _TAKE_LARGEST, **tokenizer)
    size = {"height": 32, "width": 32}
    transformers.CLIPImageProcessor(size=size, crop_size=size).save_pretrained(folder)
    return f"hf:{folder}"
