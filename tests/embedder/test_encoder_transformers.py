"""Language models: every family against the library's own forward pass, alone, in batches, padded on either side."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

from embedder.encoder import Encoder, load_encoder
from embedder.encoders._transformers_text import pool
from embedder.errors import EncoderError, MissingFact, Undecodable, UnknownName, UsageError
from tests.parity import opened, text_alone, text_batch, worst_cosine
from tests.tiny_transformers import ENCODERS, LONGEST, TEXT, text_folder

LEAST = 0.9999
POOLINGS = ("cls", "mean", "max", "last")
TEXTS = (
    "frost", "A longer sentence, so that the short ones beside it are padded.", "!", "two words", "ünïcode 数字 42",
    "a text that is longer than the model can read, " * 4,
)  # fmt: skip
Folder = Callable[..., Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Write a checkpoint once: decoders declare left padding and have no padding token, unless asked otherwise."""

    @cache
    def write(family: str, side: str = "", pad: bool | None = None) -> Path:
        encodes = family in ENCODERS
        chosen = side or ("right" if encodes else "left")
        place = tmp_path_factory.mktemp(family)
        return text_folder(place, family, side=chosen, pad=encodes if pad is None else pad)

    return write


def load(folder: Path, options: str = "") -> Encoder:
    return load_encoder(f"transformers:{folder}?normalize=false{'&' if options else ''}{options}", device="cpu")


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("family", TEXT)
def test_vectors_are_the_librarys_own(family: str, pooling: str, folder: Folder) -> None:
    encoder, alone = load(folder(family), f"pooling={pooling}"), text_alone(folder(family), TEXTS, pooling)
    for batch_size in (1, 3, len(TEXTS)):
        assert encoder.encode(TEXTS, batch_size=batch_size) == pytest.approx(alone, rel=1e-3, abs=1e-4), batch_size
    for side in ("left", "right"):
        assert worst_cosine(encoder.encode(TEXTS), text_batch(folder(family), TEXTS, pooling, side)) >= LEAST, side


@pytest.mark.parametrize("family", TEXT)
def test_the_declared_padding_side_and_token_change_nothing(family: str, folder: Folder) -> None:
    found = [load(folder(family, side, pad)).encode(TEXTS) for side in ("left", "right") for pad in (True, False)]
    for vectors in found[1:]:
        assert np.array_equal(vectors, found[0])


def test_these_checkpoints_would_show_padding_that_is_read(folder: Folder) -> None:
    """Plant the usual mistakes in the reference: the tests above must be able to see each of them."""
    tokenizer, model = opened(folder("gpt2"))
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "left"
    tokens = tokenizer(list(TEXTS), padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
    with torch.inference_mode():
        states = model(**tokens).last_hidden_state.numpy()
    for wrong, pooling in ((states[:, -1], "last"), (states[:, 0], "cls"), (states.mean(1), "mean")):
        assert worst_cosine(wrong, text_alone(folder("gpt2"), TEXTS, pooling)) < 0.99, pooling
    tokenizer, model = opened(folder("bert"))
    tokens = tokenizer(list(TEXTS), padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
    with torch.inference_mode():
        unmasked = model(tokens["input_ids"]).last_hidden_state.numpy()
    assert worst_cosine(unmasked[:, 0], text_alone(folder("bert"), TEXTS, "cls")) < 0.99


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_reads_real_tokens_wherever_they_are(pooling: str) -> None:
    states = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0)) - 3
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]).bool()
    found = pool(states, mask, pooling)
    for row in range(3):
        inside = states[row][mask[row]]
        expected = {"cls": inside[0], "last": inside[-1], "mean": inside.mean(0), "max": inside.amax(0)}[pooling]
        assert torch.allclose(found[row], expected), row
    assert found[3].isnan().all()


def test_a_text_without_tokens_is_no_vector(folder: Folder) -> None:
    for pooling in POOLINGS:
        encoder = load(folder("llama"), f"pooling={pooling}")
        vectors, good = encoder.forward("text", [[], [70, 71]])
        assert list(good) == [False, True]
        assert vectors[1] == pytest.approx(encoder.forward("text", [[70, 71]])[0][0], abs=1e-5)
        assert not encoder.forward("text", [[]])[1].any()


@pytest.mark.parametrize("family", TEXT)
@pytest.mark.parametrize("layer", [0, 2, -2])
def test_a_layer_is_the_librarys_hidden_state(family: str, layer: int, folder: Folder) -> None:
    encoder = load(folder(family), f"layer={layer}&pooling=mean")
    assert encoder.space.identity["layer"] == layer % 4
    assert encoder.encode(TEXTS) == pytest.approx(text_alone(folder(family), TEXTS, "mean", layer), rel=1e-3, abs=1e-4)


def test_the_last_layer_is_the_default_and_no_other_exists(folder: Folder) -> None:
    same = [load(folder("llama"), options) for options in ("", "layer=-1", "layer=3", "pooling=last")]
    assert len({encoder.space.fingerprint for encoder in same}) == 1
    assert np.array_equal(same[0].encode(TEXTS), same[1].encode(TEXTS))
    for layer in ("4", "-5", "first"):
        with pytest.raises(UsageError, match="layer must be a whole number from -4 to 3"):
            load(folder("llama"), f"layer={layer}")


@pytest.mark.parametrize("family", TEXT)
def test_encoders_pool_the_mean_and_decoders_the_last_token(family: str, folder: Folder) -> None:
    assert load(folder(family)).space.identity["pooling"] == ("mean" if family in ENCODERS else "last")


def test_a_masked_model_that_was_made_a_decoder_pools_the_last_token(tmp_path: Path) -> None:
    assert load(text_folder(tmp_path, "bert", is_decoder=True)).space.identity["pooling"] == "last"


def test_half_precision_is_the_librarys_own(folder: Folder, tmp_path: Path) -> None:
    for family in ("gpt2", "bert", "falcon"):
        expected = text_alone(folder(family), TEXTS, "mean", dtype=torch.bfloat16)
        found = load(folder(family), "pooling=mean&dtype=bfloat16").encode(TEXTS, batch_size=1)
        assert worst_cosine(found, expected) > LEAST, family
    place, text = text_folder(tmp_path, "llama", limit=2048, max_position_embeddings=2048), ["far " * 500]
    expected = text_alone(place, text, "last", limit=2048, dtype=torch.bfloat16)
    assert load(place, "dtype=bfloat16").encode(text) == pytest.approx(expected, abs=1e-6)
    tokenizer, rounded = opened(place)
    rounded.to(torch.bfloat16)
    with torch.inference_mode():
        turned = rounded(**tokenizer(text, return_tensors="pt")).last_hidden_state[:, -1].float().numpy()
    assert np.abs(turned - expected).max() > 0.01, "rotary frequencies in bfloat16 turn the later tokens elsewhere"


def test_untrained_is_the_librarys_own_initialisation(folder: Folder) -> None:
    encoder = load(folder("gpt2"), "weights=random&seed=7&pooling=mean")
    tokenizer, trained = opened(folder("gpt2"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = AutoModel.from_config(trained.config).eval()
    with torch.inference_mode():
        states = model(**tokenizer(TEXTS[1], return_tensors="pt")).last_hidden_state
    assert encoder.encode([TEXTS[1]])[0] == pytest.approx(states[0].mean(0).numpy(), abs=1e-5)
    assert encoder.space.identity["weights"] == {"random": 7}
    assert encoder.space.identity == {**load(folder("gpt2"), "pooling=mean").space.identity, "weights": {"random": 7}}


def test_long_texts_are_cut_where_the_model_ends(folder: Folder, tmp_path: Path) -> None:
    for family in TEXT:
        encoder = load(folder(family))
        assert encoder.text is not None
        assert encoder.text.length(encoder.prepare("x" * 500)[1]) == LONGEST, family
        assert np.array_equal(*(encoder.encode(["x" * 500 + end]) for end in ("a", "b"))), family
    short = load(folder("gpt2"), "max_length=3")
    assert np.array_equal(short.encode(["frost"]), short.encode(["fro"]))
    assert short.space.fingerprint != load(folder("gpt2")).space.fingerprint
    with pytest.raises(UsageError, match=f"max_length must be a whole number from 1 to {LONGEST}"):
        load(folder("gpt2"), f"max_length={LONGEST + 1}")
    with pytest.raises(UsageError, match=f"max_length must be a whole number from 3 to {LONGEST}"):
        load(folder("roberta"), f"max_length={LONGEST + 1}")


def test_a_tokenizer_without_a_limit_leaves_it_to_the_model_or_to_the_user(tmp_path: Path) -> None:
    known = text_folder(tmp_path / "known", "roberta", limit=None)
    assert load(known).space.identity["text"]["max_length"] == LONGEST
    open_end = text_folder(tmp_path / "open", "falcon", limit=None)
    config = (open_end / "config.json").read_text()
    (open_end / "config.json").write_text(config.replace(f'"max_position_embeddings": {LONGEST}', '"x": 1'))
    assert load(open_end).space.identity["text"]["max_length"] == 2048, "what the class declares"
    (open_end / "config.json").write_text(config.replace(f": {LONGEST},", ": 0,"))
    with pytest.raises(MissingFact, match="how many tokens a text may have"):
        load(open_end)
    assert load(open_end, "max_length=20").space.identity["text"]["max_length"] == 20


def test_prompts_go_before_texts_of_their_role(folder: Folder) -> None:
    plain, asked = load(folder("bert")), load(folder("bert"), "query_prompt=query: &document_prompt=passage: ")
    assert np.array_equal(asked.encode(["cat"], role="query"), plain.encode(["query: cat"]))
    assert np.array_equal(asked.encode(["cat"]), plain.encode(["passage: cat"]))


def test_a_token_that_the_model_does_not_have_is_one_bad_item(tmp_path: Path) -> None:
    place = text_folder(tmp_path, "gpt2")
    tokenizer, _ = opened(place)
    tokenizer.add_tokens(["zzz"])
    tokenizer.save_pretrained(str(place))
    encoder = load(place)
    assert len(encoder.encode(["zz top"])) == 1
    with pytest.raises(Undecodable, match="token 261 of 261"):
        encoder.encode(["zzz top"])


def test_the_space_says_which_files_and_settings_made_it(folder: Folder, tmp_path: Path) -> None:
    space = load(folder("llama")).space
    assert space.identity["architecture"] == "transformers/llama"
    assert space.identity["config"]["num_key_value_heads"] == 2
    assert not {"transformers_version", "dtype", "architectures"} & set(space.identity["config"])
    for file, old, new in (
        ("config.json", '"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-03'),
        ("tokenizer.json", '"Ġ"', '"Ġ "'),
    ):
        copy = tmp_path / file
        copy.mkdir()
        for path in folder("llama").iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        text = (copy / file).read_text("utf-8")
        assert old in text
        (copy / file).write_text(text.replace(old, new), "utf-8")
        assert load(copy).space.fingerprint != space.fingerprint, file


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="write transformers:openai-community/gpt2"):
        load_encoder("transformers:gpt2")
    with pytest.raises(EncoderError, match="there is no folder"):
        load_encoder(f"transformers:{tmp_path / 'nothing'}")
    with pytest.raises(EncoderError, match=r"config\.json cannot be read"):
        load_encoder(f"transformers:{tmp_path}?weights=random")


def test_options_of_the_other_medium_are_refused(folder: Folder) -> None:
    with pytest.raises(UnknownName, match="no option is called 'fit'"):
        load(folder("bert"), "fit=pad")
