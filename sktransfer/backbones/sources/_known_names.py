"""Names of Keras, of CLIP and DINO, and of families of networks, with the names that mean the same here.

Each table is looked into only to say what to write. Nothing is loaded by a name of it.
"""

import re

# Letters and digits of names of Keras (and of gluon) for networks that torchvision does not have.
_KERAS = {
    "resnet50v2": "timm:resnetv2_50", "resnet101v2": "timm:resnetv2_101", "resnet152v2": "timm:resnetv2_152",
    "nasnetlarge": "timm:nasnetalarge", "inceptionresnetv2": "timm:inception_resnet_v2", "xception": "timm:xception",
    "mobilenet": "timm:mobilenetv1_100", "mobilenetv1": "timm:mobilenetv1_100",
    "convnextxlarge": "timm:convnext_xlarge",
    **{f"efficientnetv2b{size}": f"timm:tf_efficientnetv2_b{size}" for size in range(4)},
}  # fmt: skip

# Names of families alone: one of each, of the size that most people begin with.
_FAMILIES = {
    "albert": "albert-base-v2", "ast": "MIT/ast-finetuned-audioset-10-10-0.4593", "bert": "bert-base-uncased",
    "beit": "microsoft/beit-base-patch16-224", "clip": "openai/clip-vit-base-patch32",
    "deit": "facebook/deit-small-patch16-224", "dinov2": "facebook/dinov2-small",
    "distilbert": "distilbert-base-uncased", "electra": "google/electra-small-discriminator", "gpt": "gpt2",
    "hubert": "facebook/hubert-base-ls960", "ijepa": "facebook/ijepa_vith14_1k", "mae": "facebook/vit-mae-base",
    "minilm": "sentence-transformers/all-MiniLM-L6-v2", "mpnet": "sentence-transformers/all-mpnet-base-v2",
    "roberta": "roberta-base", "sbert": "sentence-transformers/all-MiniLM-L6-v2",
    "siglip": "google/siglip-base-patch16-224", "t5": "t5-small", "vit": "google/vit-base-patch16-224",
    "vitmae": "facebook/vit-mae-base", "wav2vec": "facebook/wav2vec2-base", "wav2vec2": "facebook/wav2vec2-base",
    "wavlm": "microsoft/wavlm-base", "whisper": "openai/whisper-tiny", "xlmr": "xlm-roberta-base",
    "xlmroberta": "xlm-roberta-base",
}  # fmt: skip

_SIZES = {
    "ti": "tiny", "s": "small", "b": "base", "l": "large", "h": "huge", "g": "giant", "bigg": "gigantic",
}  # fmt: skip
_VIT = re.compile(r"vit[-_ ](ti|s|b|l|h|g|bigg)[-_/ ](14|16|32)(?:[-_@ ]?(336)(?:px)?)?", re.IGNORECASE)
_DINO = re.compile(r"(dino|dinov2|dinov3)[-_](vit)([sblgh])(8|14|16)([-_]reg)?(?:[-_]lc)?", re.IGNORECASE)


def known_elsewhere(name: str) -> str | None:
    """Return the `backbone=` for a name of Keras, gluon, CLIP's or DINO's authors.

    Parameters
    ----------
    name : str
        Without a prefix.

    Returns
    -------
    str or None
        `None` if it is another name.
    """
    if (found := _KERAS.get(letters(name))) is not None:
        return found
    if (dino := _DINO.fullmatch(name)) is not None:
        kind, size = dino[1].casefold(), _SIZES[dino[3].casefold()]
        if kind == "dino":
            return f"hf:facebook/dino-vit{dino[3].casefold()}{dino[4]}"
        if kind == "dinov3":
            return f"hf:facebook/dinov3-vit{dino[3].casefold()}{dino[4]}-pretrain-lvd1689m"
        return f"hf:facebook/dinov2-{'with-registers-' if dino[5] else ''}{size}"
    if (vit := _VIT.fullmatch(name)) is not None and vit[1].casefold() in ("ti", "s"):
        return f"timm:vit_{_SIZES[vit[1].casefold()]}_patch{vit[2]}_224"
    return of_clip(name) if vit is not None else None


def of_clip(name: str) -> str | None:
    """Return timm's name of an image network of CLIP, as openai's and open_clip's authors call it.

    Parameters
    ----------
    name : str
        Such as `"ViT-B-32"`, `"ViT-L/14@336px"`, or with its training behind: `"ViT-B-32/laion2b_s34b_b79k"`.

    Returns
    -------
    str or None
        With `timm:` in front; `None` where timm has none.
    """
    found = _VIT.match(name)
    if found is None or found[1].casefold() in ("ti", "s"):
        return "timm:resnet50_clip.openai" if letters(name) in ("rn50", "rn50openai") else None
    laion = "laion" in name[found.end() :].casefold() or found[1].casefold() in ("h", "g", "bigg")
    training = "laion2b" if laion else "openai"
    return f"timm:vit_{_SIZES[found[1].casefold()]}_patch{found[2]}_clip_{found[3] or 224}.{training}"


def of_family(name: str) -> str | None:
    """Return one network of a family that is named alone, such as `"BERT"`, or by a class: `"BertModel"`.

    Parameters
    ----------
    name : str
        Without a prefix.

    Returns
    -------
    str or None
        Its name on the Hugging Face Hub; `None` if it does not name a family.
    """
    of_class = re.fullmatch(r"(?:TF|Flax)?([A-Z]\w*?)(?:Model|Config|Tokenizer|For[A-Z]\w*)", name)
    return _FAMILIES.get(letters(of_class[1] if of_class else name))


def letters(name: str) -> str:
    """Return letters and digits of a name alone, in lower case.

    Parameters
    ----------
    name : str
        Any.

    Returns
    -------
    str
        By which spellings of one name are equal.
    """
    return re.sub(r"[^a-z0-9]", "", name.casefold())
