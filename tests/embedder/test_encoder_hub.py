"""Weights from a hub: a small one on this machine, its cache, and no hub at all."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from embedder.encoder import load_encoder
from embedder.encoders import _hub
from embedder.errors import EncoderError
from tests.checkpoints import TIMM, open_clip_folder, timm_folder

TAGGED = f"{TIMM}.r160_in1k"
COMMIT, OLDER = "c0" * 20, "0b" * 20


@dataclass
class Hub:
    """A server that answers as the hub does for the files of some commits; `asked` are the paths requested."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    spoil: int = 0

    def handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, *, body: bool) -> None:
                hub.asked.append(self.path)
                repo, _, rest = self.path.lstrip("/").partition("/resolve/")
                revision, _, file = rest.partition("/")
                commit = COMMIT if revision == "main" else revision
                data = hub.files.get(f"{repo}@{commit}", {}).get(file)
                self.send_response(200 if data is not None or not rest else 404)
                if data is None:
                    self.send_header(
                        "X-Error-Code", "EntryNotFound" if f"{repo}@{commit}" in hub.files else "RepoNotFound"
                    )
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_header("X-Repo-Commit", commit)
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if body:
                    if file.endswith(".safetensors") and hub.spoil:
                        hub.spoil -= 1
                        data = data[:-1] + bytes([data[-1] ^ 1])
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                return

        return Handler


def use(monkeypatch: pytest.MonkeyPatch, endpoint: str, cache: Path) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    found = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), found.handler())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    use(monkeypatch, f"http://127.0.0.1:{server.server_port}", tmp_path / "cache")
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return an empty cache, beside a hub whose port is closed."""
    use(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    return tmp_path / "cache"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_timm_by_tag_comes_from_the_hub_and_says_which_commit(hub: Hub, tmp_path: Path) -> None:
    folder = timm_folder(tmp_path / "model")
    hub.files[f"timm/{TAGGED}@{COMMIT}"] = contents(folder)
    encoder = load_encoder(f"timm:{TAGGED}")
    assert encoder.space.provenance["revision"] == COMMIT
    assert encoder.space.fingerprint == load_encoder(f"timm:local-dir:{folder}").space.fingerprint
    assert load_encoder(f"timm:hf-hub:timm/{TAGGED}").space.fingerprint == encoder.space.fingerprint


def test_a_pinned_commit_is_the_one_that_is_fetched_and_then_needs_no_hub(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = f"timm/{TAGGED}"
    hub.files[f"{repo}@{COMMIT}"] = contents(timm_folder(tmp_path / "new", seed=1))
    hub.files[f"{repo}@{OLDER}"] = contents(timm_folder(tmp_path / "old", seed=2))
    old = load_encoder(f"timm:{TAGGED}@{OLDER}").space
    assert old.fingerprint == load_encoder(f"timm:local-dir:{tmp_path / 'old'}").space.fingerprint
    assert old.provenance["revision"] == OLDER
    assert not [path for path in hub.asked if "/main/" in path or COMMIT in path]
    hub.asked.clear()
    assert load_encoder(f"timm:{TAGGED}@{OLDER}").space.fingerprint == old.fingerprint
    assert hub.asked == []
    new = load_encoder(f"timm:{TAGGED}").space
    assert new.fingerprint != old.fingerprint
    use(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    assert load_encoder(f"timm:{TAGGED}").space.fingerprint == new.fingerprint


def test_untrained_needs_the_configuration_only(hub: Hub, tmp_path: Path) -> None:
    files = contents(timm_folder(tmp_path / "model"))
    hub.files[f"me/mine@{COMMIT}"] = {"config.json": files["config.json"]}
    assert load_encoder("timm:hf-hub:me/mine?weights=random").space.identity["weights"] == {"random": 0}
    with pytest.raises(EncoderError, match="the hub does not give me/mine"):
        load_encoder("timm:hf-hub:me/mine")


def test_open_clip_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    folder = open_clip_folder(tmp_path / "clip", quick_gelu=True)
    hub.files[f"me/clip@{OLDER}"] = {**contents(folder), "model.safetensors": b"of another library"}
    space = load_encoder(f"open_clip:hf-hub:me/clip@{OLDER}").space
    assert space.fingerprint == load_encoder(f"open_clip:local-dir:{folder}").space.fingerprint
    assert space.provenance["revision"] == OLDER
    assert not [path for path in hub.asked if path.endswith("/model.safetensors")]


def test_open_clip_by_tag_comes_from_the_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip

    from tests.checkpoints import PREPROCESS, TEXT_CFG, VIT_CFG

    folder = open_clip_folder(tmp_path / "clip", quick_gelu=True)
    config = {"embed_dim": 24, "vision_cfg": dict(VIT_CFG), "text_cfg": dict(TEXT_CFG)}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny", config)
    weights = (folder / "open_clip_model.safetensors").read_bytes()
    for tag, place, file in (("whole", "me/a/", "open_clip_model"), ("named", "me/b/tiny-e3.bin", "tiny-e3")):
        declared = {**PREPROCESS, "quick_gelu": True, "hf_hub": place}
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Tiny", {tag: declared})
        hub.files[f"{place.rpartition('/')[0]}@{COMMIT}"] = {f"{file}.safetensors": weights}
        space = load_encoder(f"open_clip:Tiny/{tag}").space
        assert space.fingerprint == load_encoder(f"open_clip:local-dir:{folder}").space.fingerprint


def test_a_damaged_download_is_fetched_once_more_and_then_refused(hub: Hub, tmp_path: Path) -> None:
    folder = timm_folder(tmp_path / "model")
    hub.files[f"me/mine@{COMMIT}"] = contents(folder)
    hub.spoil = 1
    assert (
        load_encoder("timm:hf-hub:me/mine").space.fingerprint
        == load_encoder(f"timm:local-dir:{folder}").space.fingerprint
    )
    shutil.rmtree(constants.HF_HUB_CACHE)
    hub.spoil = 2
    with pytest.raises(EncoderError, match=r"model\.safetensors of me/mine is damaged"):
        load_encoder("timm:hf-hub:me/mine")


@pytest.mark.parametrize("pin", ["", f"@{COMMIT}"])
def test_a_file_damaged_in_the_cache_is_fetched_again_or_named(
    pin: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files[f"me/mine@{COMMIT}"] = contents(timm_folder(tmp_path / "model"))
    whole = load_encoder(f"timm:hf-hub:me/mine{pin}").space
    (cached,) = (tmp_path / "cache").rglob("snapshots/*/model.safetensors")
    cached.resolve().write_bytes(cached.read_bytes()[:-9])
    assert load_encoder(f"timm:hf-hub:me/mine{pin}").space.fingerprint == whole.fingerprint
    cached.resolve().write_bytes(cached.read_bytes()[:-9])
    use(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    with pytest.raises(EncoderError, match="do not match its sha256") as caught:
        load_encoder(f"timm:hf-hub:me/mine{pin}")
    assert str(cached) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        (f"timm:{TAGGED}", "bundled:efficientnet_lite0"),
        (f"timm:{TAGGED}@{COMMIT}", "bundled:efficientnet_lite0"),
        ("timm:hf-hub:me/mine", "bundled:efficientnet_lite0"),
        ("open_clip:ViT-B-32/laion2b_s34b_b79k", "bundled:minilm"),
        ("open_clip:roberta-ViT-B-32/laion2b_s12b_b32k?weights=random", "bundled:minilm"),
        ("open_clip:hf-hub:me/mine@v1", "bundled:efficientnet_lite0"),
    ],
)
def test_without_a_hub_the_error_comes_soon_and_names_what_to_use(name: str, instead: str, no_hub: Path) -> None:
    load_encoder("timm:test_vit?weights=random")
    start = time.monotonic()
    with pytest.raises(EncoderError, match="no hub can be reached") as caught:
        load_encoder(name)
    assert time.monotonic() - start < 30
    assert instead in caught.value.hint


def test_offline_by_the_hubs_own_setting(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not _hub.reachable()
    with pytest.raises(EncoderError, match="no hub can be reached"):
        load_encoder("timm:hf-hub:me/mine")
    assert hub.asked == []


def test_a_repository_that_does_not_exist(hub: Hub) -> None:
    with pytest.raises(EncoderError, match="the hub does not give me/nothing"):
        load_encoder("open_clip:hf-hub:me/nothing")
    with pytest.raises(EncoderError, match="the hub does not give"):
        load_encoder("timm:hf-hub:not a repository")
