"""sentence-transformers encoders against `SentenceTransformer.encode`, and folders that are not as they should be."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from api.settings import Settings
from embedder import golden
from embedder.encoder import Encoder, load_encoder
from embedder.errors import EncoderError, MissingFact, SpaceMismatch, UnknownName, UsageError
from tests.embedder.test_encoder_hub import COMMIT, Hub, use
from tests.sentence import DIM, change, sentence_folder

TEXTS = (
    "frost", "a much longer sentence in the snow, which goes on: two words and two dogs", "  padded  dogs ", "!",
    "ünïcode — 数字 42", "x " * 60,
)  # fmt: skip
PROMPTS = {"query": "query: ", "passage": "dogs ", "clustering": "frost "}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sentence_folder(tmp_path_factory.mktemp("sentence") / "model", prompts=PROMPTS)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A folder that a test may change."""
    return Path(shutil.copytree(folder, tmp_path / "model"))


def opened(folder: Path, options: str = "") -> Encoder:
    return load_encoder(f"sentence_transformers:{folder}{'?' * bool(options)}{options}", device="cpu")


def reference(folder: Path, **options: Any) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True, **options)


def test_prompts_of_the_model_go_before_texts_of_their_role(folder: Path) -> None:
    model, encoder = reference(folder), opened(folder)
    for batch_size in (1, 6):
        queries = encoder.encode(TEXTS, role="query", batch_size=batch_size)
        assert np.allclose(queries, model.encode_query(list(TEXTS)), atol=1e-5)
        passages = model.encode(list(TEXTS), prompt_name="passage")
        assert np.allclose(encoder.encode(TEXTS, batch_size=batch_size), passages, atol=1e-5)
    assert encoder.space.dim == DIM
    assert encoder.space.identity["text"]["query_prompt"] == "query: "
    assert encoder.space.identity["text"]["document_prompt"] == "dogs "


def test_prompts_of_the_name_come_before_those_of_the_model(folder: Path) -> None:
    encoder = opened(folder, "query_prompt=frost &document_prompt=the ")
    model = reference(folder)
    assert np.allclose(encoder.encode(TEXTS, role="query"), model.encode(list(TEXTS), prompt="frost "), atol=1e-5)
    assert np.allclose(encoder.encode(TEXTS), model.encode(list(TEXTS), prompt="the "), atol=1e-5)
    assert encoder.space.fingerprint != opened(folder).space.fingerprint


@pytest.mark.parametrize(
    ("prompts", "default", "query", "document"),
    [
        ({}, None, "", ""),
        ({"all": "frost "}, "all", "frost ", "frost "),
        ({"all": "frost "}, None, "", ""),
        ({"all": "frost ", "query": "query: "}, "all", "query: ", ""),
        ({"document": "the ", "passage": "dogs "}, None, "", "the "),
    ],
)
def test_which_prompt_is_taken(
    prompts: dict[str, str], default: str | None, query: str, document: str, copy: Path
) -> None:
    change(copy / "config_sentence_transformers.json", prompts=prompts, default_prompt_name=default)
    encoder, model = opened(copy), reference(copy)
    text = encoder.space.identity["text"]
    assert (text["query_prompt"], text["document_prompt"]) == (query, document)
    if default and query == document:
        assert np.allclose(encoder.encode(TEXTS), model.encode(list(TEXTS)), atol=1e-5)
    else:
        assert np.allclose(encoder.encode(TEXTS, role="query"), model.encode_query(list(TEXTS)), atol=1e-5)
        assert np.allclose(encoder.encode(TEXTS), model.encode_document(list(TEXTS)), atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"])
def test_poolings_of_the_library_are_its_own(pooling: str, tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path / "model", pooling=pooling, normalize=False)
    expected = reference(folder).encode(list(TEXTS))
    for batch_size in (1, 6):
        found = opened(folder, "normalize=false").encode(TEXTS, batch_size=batch_size)
        assert np.allclose(found, expected, atol=1e-5)
    assert np.linalg.norm(opened(folder).encode(TEXTS), axis=1) == pytest.approx(1, abs=1e-5)


def test_dimensions_are_cut_and_then_normalised(folder: Path) -> None:
    for n in (1, 5, DIM):
        encoder = opened(folder, f"dimensions={n}")
        expected = reference(folder, truncate_dim=n).encode(
            list(TEXTS), prompt_name="passage", normalize_embeddings=True
        )
        assert encoder.space.dim == n
        assert np.allclose(encoder.encode(TEXTS), expected, atol=1e-5)
    assert opened(folder, f"dimensions={DIM}").space.fingerprint == opened(folder).space.fingerprint
    assert opened(folder, "dimensions=5").space.identity["dimensions"] == 5
    with pytest.raises(UsageError, match="has 12 dimensions, not 13"):
        opened(folder, "dimensions=13")
    with pytest.raises(UsageError, match="whole number"):
        opened(folder, "dimensions=0")


def test_the_untrained_twin_has_no_trained_module_left(folder: Path) -> None:
    twin, again, other = (opened(folder, f"weights=random&seed={seed}") for seed in (1, 1, 2))
    assert np.array_equal(twin.encode(TEXTS), again.encode(TEXTS))
    assert np.abs(twin.encode(TEXTS) - other.encode(TEXTS)).max() > 0.01
    assert twin.space.identity == {**opened(folder).space.identity, "weights": {"random": 1}}
    trained = reference(folder)[2].linear.weight
    chain: Any = twin.text.forward if twin.text else None
    assert not torch.allclose(chain.modules[2].linear.weight, trained)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: change(f / "1_Pooling" / "config.json", pooling_mode="cls"),
        lambda f: change(f / "2_Dense" / "config.json", activation_function="torch.nn.modules.linear.Identity"),
        lambda f: change(f / "config.json", hidden_act="relu"),
        lambda f: change(f / "config_sentence_transformers.json", prompts={"query": "query:"}),
        lambda f: change(f / "tokenizer_config.json", do_lower_case=False),
        lambda f: _nudge(f / "2_Dense" / "model.safetensors"),
        lambda f: _nudge(f / "model.safetensors"),
    ],
    ids=["pooling", "dense activation", "activation", "prompt", "tokenizer", "dense weights", "weights"],
)
def test_each_file_of_the_chain_is_part_of_the_space(spoil: Any, folder: Path, copy: Path) -> None:
    before = opened(folder)
    assert opened(copy).space.fingerprint == before.space.fingerprint
    spoil(copy)
    after = opened(copy)
    assert after.space.dim == before.space.dim
    with pytest.raises(SpaceMismatch, match="differs in"):
        before.space.require(after.space, what="the query")


def _nudge(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 0x80
    file.write_bytes(data)


def test_who_wrote_the_folder_is_no_part_of_the_space(folder: Path, copy: Path) -> None:
    change(copy / "config.json", transformers_version="4.6.1", _name_or_path="elsewhere")
    change(copy / "config_sentence_transformers.json", __version__={"sentence_transformers": "2.0.0"})
    rows = json.loads((copy / "modules.json").read_text())
    rows[1]["type"] = "sentence_transformers.models.Pooling"
    (copy / "modules.json").write_text(json.dumps(rows))
    assert opened(copy).space.fingerprint == opened(folder).space.fingerprint


@pytest.mark.parametrize(
    ("file", "values", "error", "said"),
    [
        ("2_Dense/config.json", {"activation_function": "my.Own"}, EncoderError, "not torch's own"),
        ("1_Pooling/config.json", {"include_prompt": False}, EncoderError, "leaves the prompt out"),
    ],
)
def test_what_is_not_reproduced_is_refused(
    file: str, values: dict[str, Any], error: type[Exception], said: str, copy: Path
) -> None:
    change(copy / file, **values)
    with pytest.raises(error, match=said):
        opened(copy)


@pytest.mark.parametrize(
    ("type_", "said"),
    [
        ("custom_st.Transformer", "not run here"), ("subprocess.Popen", "not run here"),
        ("sentence_transformers.models.StaticEmbedding", "not run here"),
        ("sentence_transformers.models.Pooling", "begin with a Transformer"),
    ],
)  # fmt: skip
def test_modules_that_are_not_the_librarys_are_never_imported(type_: str, said: str, copy: Path) -> None:
    rows = json.loads((copy / "modules.json").read_text())
    rows[0]["type"] = type_
    (copy / "modules.json").write_text(json.dumps(rows))
    with pytest.raises(EncoderError, match=said):
        opened(copy)


def test_folders_that_lack_something(copy: Path, tmp_path: Path) -> None:
    for file in ("2_Dense/model.safetensors", "model.safetensors"):
        whole = (copy / file).read_bytes()
        (copy / file).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(EncoderError, match="cannot be loaded"):
            opened(copy)
        (copy / file).unlink()
        with pytest.raises(EncoderError, match="holds no weights"):
            opened(copy)
        (copy / file).write_bytes(whole)
    (copy / "1_Pooling" / "config.json").unlink()
    with pytest.raises(EncoderError, match=r"1_Pooling.config\.json cannot be read"):
        opened(copy)
    (copy / "modules.json").unlink()
    with pytest.raises(MissingFact, match=r"no modules\.json"):
        opened(copy)
    with pytest.raises(EncoderError, match="no folder"):
        opened(tmp_path / "nothing")
    with pytest.raises(UsageError, match="name the folder itself"):
        opened(copy, f"weights={copy}")
    with pytest.raises(UnknownName, match="did you mean sentence-transformers/all-MiniLM-L6-v2"):
        load_encoder("sentence_transformers:all-MiniLM-L6-v2")


def test_golden_vectors_notice_another_pooling(folder: Path) -> None:
    encoder = opened(folder)
    golden.check(encoder, golden.pack(golden.vectors(encoder)))
    with pytest.raises(SpaceMismatch, match="cosine"):
        golden.check(opened(folder, "pooling=max"), golden.pack(golden.vectors(encoder)))


@contextmanager
def served(hub: Hub) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), hub.handler())
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_default_text_encoder_reaches_the_hub_unchanged(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = Settings().text_encoder
    assert name == "sentence_transformers:sentence-transformers/all-MiniLM-L6-v2"
    repo = name.partition(":")[2]
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    hub = Hub({f"{repo}@{COMMIT}": files})
    with served(hub) as address:
        use(monkeypatch, address, tmp_path / "cache")
        encoder = load_encoder(name, device="cpu")
        pinned = load_encoder(f"{name}@{COMMIT}", device="cpu")
    assert f"/{repo}/resolve/main/modules.json" in hub.asked
    assert f"/{repo}/resolve/{COMMIT}/2_Dense/model.safetensors" in hub.asked
    assert encoder.space.provenance["revision"] == pinned.space.provenance["revision"] == COMMIT
    local = opened(folder)
    assert encoder.space.fingerprint == pinned.space.fingerprint == local.space.fingerprint
    assert np.array_equal(encoder.encode(TEXTS), local.encode(TEXTS))
    use(monkeypatch, "http://127.0.0.1:1", tmp_path / "cache")
    assert load_encoder(name, device="cpu").space.fingerprint == local.space.fingerprint, "the cache is used"


def test_without_a_hub_the_bundled_encoder_is_named_in_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "http://127.0.0.1:1", tmp_path / "cache")
    started = time.monotonic()
    with pytest.raises(EncoderError, match="no hub can be reached") as caught:
        load_encoder(Settings().text_encoder)
    assert time.monotonic() - started < 30
    assert "bundled:minilm" in caught.value.hint
