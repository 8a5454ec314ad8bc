"""ConSE (Norouzi et al. 2014, arXiv:1312.5650): pictures and words in one Space, without training.

A picture's vector is the mean, weighted by probability, of the MiniLM vectors of "a photo of a CLASS" over its ten
likeliest ImageNet classes, as EfficientNet-Lite0 sees them. A text's vector is its MiniLM vector. Only what ImageNet
names can be found.
"""

from __future__ import annotations

import hashlib
from typing import Any, cast

import numpy as np
import torch
from timm.data import ImageNetInfo, resolve_model_data_config
from torch import Tensor, nn

from embedder.encoder import Encoder, Forward, ImageTower, TextTower
from embedder.encoders import _effnet_lite
from embedder.encoders._common import Settings, describe, versions
from embedder.encoders._declared import timm_transform
from embedder.encoders._torch import frozen, image_forward
from embedder.naming import EncoderName
from embedder.records import FloatMatrix
from embedder.space import canonical_json

MOST_LIKELY = 10
TEMPLATE = "a photo of a {}"
CLASSES = 1000
BATCH = 100


def load(name: EncoderName, chosen: Settings, texts: Encoder) -> Encoder:
    """Join EfficientNet-Lite0 to a text encoder whose vectors are normalised.

    Raises:
        EncoderError: a package is not installed, or its file is damaged.
    """
    where = torch.device(texts.device)
    model = _effnet_lite.build("0", None)
    transform = timm_transform(resolve_model_data_config(model), name)
    frozen(model, where, chosen.dtype)
    file, package = _effnet_lite.file_name("0"), _effnet_lite.package("0")
    forward = _image_forward(model, class_vectors(texts), transform, where, chosen.dtype)
    licences = {"image": package.licence, "text": texts.space.provenance["licence"]}
    space = describe(
        name, chosen, dim=texts.space.dim, architecture="conse/tf_efficientnet_lite0+minilm-l6",
        weights={"image": package.sha256[file], "text": texts.space.identity["weights"]["sha256"]},
        layer="probabilities", pooling="conse", image=transform, text=texts.space.identity["text"],
        more={
            "classes": MOST_LIKELY, "template": TEMPLATE,
            "labels": hashlib.sha256(canonical_json(labels()).encode()).hexdigest(),
        },
        provenance={
            "licence": licences, "files": [{"name": file, "sha256": package.sha256[file]},
                                           *texts.space.provenance["files"]],
            "versions": versions("timm", "sentence-transformers", "transformers", "tokenizers", "torch"),
        },
    )  # fmt: skip
    return Encoder(name, space, texts.device, ImageTower(transform, forward), cast(TextTower, texts.text))


def labels() -> list[str]:
    """Return the first lemma of each ImageNet-1k class, in the order of the classifier."""
    names = ImageNetInfo()
    return [names.index_to_description(i).split(",")[0] for i in range(CLASSES)]


def class_vectors(texts: Encoder) -> FloatMatrix:
    """Return the unit vectors (1000, dim) of the classes; texts of like length share a batch."""
    sentences = np.array([TEMPLATE.format(label) for label in labels()])
    order = np.argsort(np.char.str_len(sentences), kind="stable")
    found = np.empty((CLASSES, texts.space.dim), dtype=np.float32)
    found[order] = texts.encode(sentences[order].tolist(), batch_size=BATCH)
    return found


def _image_forward(model: nn.Module, classes: FloatMatrix, transform: Any, where: torch.device, dtype: str) -> Forward:
    matrix = torch.from_numpy(classes).to(where)

    def features(pixels: Tensor) -> Tensor:
        chances, found = model(pixels).float().softmax(1).topk(MOST_LIKELY, dim=1)
        weights = chances / chances.sum(1, keepdim=True)
        return torch.einsum("nk,nkd->nd", weights, matrix[found])

    return image_forward(features, transform, where, dtype)
