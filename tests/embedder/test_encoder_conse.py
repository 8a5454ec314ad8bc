"""ConSE against its formula in numpy, on timm's and sentence-transformers' own outputs."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from sentence_transformers import SentenceTransformer
from sklearn.datasets import load_sample_image
from timm.data import ImageNetInfo

from embedder import golden
from embedder.encoder import Encoder, load_encoder
from embedder.encoders import _conse, _effnet_lite, bundled
from embedder.errors import UnknownName, UsageError

pytestmark = pytest.mark.usefixtures("pillows_resize")

SENTENCES = ("a palace", "a flower in a meadow", "a musical instrument", "the stock market fell")


KNOWN: list[NDArray[np.float32]] = []


@pytest.fixture(scope="module")
def conse() -> Encoder:
    """Load it, and keep the vectors of its classes, which take seconds."""
    made = _conse.class_vectors
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_conse, "class_vectors", lambda texts: KNOWN.append(made(texts)) or KNOWN[0])
        return load_encoder("bundled:conse", device="cpu")


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")] + golden.pictures()


def test_pictures_are_what_the_paper_says(conse: Encoder, pictures: list[Image.Image]) -> None:
    model = _effnet_lite.build("0", None).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    with torch.inference_mode():
        logits = model(torch.stack([transform(picture) for picture in pictures])).double().numpy()
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    sentence = SentenceTransformer(str(bundled.MINILM.folder()), device="cpu")
    for row, vector in zip(chances, conse.encode(pictures), strict=True):
        likely = np.argsort(-row)[:10]
        texts = [f"a photo of a {ImageNetInfo().index_to_description(int(i)).split(',')[0]}" for i in likely]
        mean = row[likely] @ sentence.encode(texts, show_progress_bar=False)
        assert vector == pytest.approx(mean / np.linalg.norm(mean), abs=1e-4)


def test_texts_are_minilm_s_own(conse: Encoder) -> None:
    assert conse.encode(SENTENCES) == pytest.approx(load_encoder("bundled:minilm").encode(SENTENCES), abs=1e-6)


def test_words_find_pictures(conse: Encoder, pictures: list[Image.Image]) -> None:
    scores = conse.encode(SENTENCES, role="query") @ conse.encode(pictures[:2]).T
    assert list(scores[:2].argmax(1)) == [0, 1]
    assert scores[[0, 1], [0, 1]].min() > 0.3
    assert scores[3].max() < 0.2


def test_one_space_with_two_towers(conse: Encoder) -> None:
    space = conse.space
    assert (space.media, space.dim) == (("image", "text"), 384)
    identity = space.identity
    assert identity["weights"] == {
        "image": _effnet_lite.SHA256["0"], "text": bundled.MINILM.sha256["model.safetensors"],
    }  # fmt: skip
    assert (identity["classes"], identity["template"]) == (10, "a photo of a {}")
    assert len(identity["labels"]) == 64
    assert space.provenance["licence"] == {"image": "Apache-2.0", "text": "Apache-2.0"}
    golden.check(conse, golden.pack(golden.vectors(conse)))


def test_alone_equals_batched(conse: Encoder, pictures: list[Image.Image]) -> None:
    for values in (pictures, SENTENCES):
        alone = np.concatenate([conse.encode([value]) for value in values])
        assert conse.encode(values) == pytest.approx(alone, abs=1e-5)


def test_labels_are_first_lemmas() -> None:
    labels = _conse.labels()
    assert len(labels) == 1000
    assert [labels[i] for i in (1, 2, 546, 639)] == ["goldfish", "great white shark", "electric guitar", "maillot"]


def test_options_are_spaces_of_their_own(
    conse: Encoder, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert np.linalg.norm(KNOWN[0], axis=1) == pytest.approx(1, abs=1e-5)
    monkeypatch.setattr(_conse, "class_vectors", lambda texts: KNOWN[0])
    wide = pictures[0].crop((0, 0, 600, 200))
    base, prints = conse.encode([wide]), {conse.space.fingerprint}
    for options in ("fit=pad", "fit=squash", "fit=pad&background=black"):
        other = load_encoder(f"bundled:conse?{options}", device="cpu")
        assert np.abs(other.encode([wide]) - base).max() > 1e-3, options
        prints.add(other.space.fingerprint)
    raw = load_encoder("bundled:conse?normalize=false", device="cpu")
    kept = raw.encode([wide])
    assert np.linalg.norm(kept) < 0.999, "a mean of unit vectors is shorter"
    assert kept / np.linalg.norm(kept) == pytest.approx(base, abs=1e-5)
    assert len(prints | {raw.space.fingerprint}) == 5
    for wrong in ("pooling=mean", "layer=2", "max_length=9", "query_prompt=a", "image_size=96"):
        with pytest.raises(UnknownName, match="no option is called"):
            load_encoder(f"bundled:conse?{wrong}")
    with pytest.raises(UsageError, match="those of their package"):
        load_encoder("bundled:conse@main")
