"""Encoder names: what can be written is read back, and what cannot be read is answered with what to write."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedder import kinds, naming
from embedder.errors import UnknownName, UsageError
from embedder.naming import EncoderName, parse

# what a command line can hold: any text, and bytes that are not UTF-8 as surrogates
WORDS = st.text(min_size=1, max_size=20) | st.binary(min_size=1, max_size=8).map(os.fsdecode)
NAMES = st.builds(
    EncoderName,
    kind=st.sampled_from(kinds.names("embedder.encoders")),
    name=WORDS,
    revision=st.none() | WORDS,
    options=st.dictionaries(st.from_regex("[a-z][a-z_]{0,12}", fullmatch=True), WORDS, max_size=5),
)


@given(NAMES)
def test_every_name_is_read_back(name: EncoderName) -> None:
    assert parse(str(name)) == name
    assert str(parse(str(name))) == str(name)


@given(NAMES)
def test_the_order_of_options_is_no_difference(name: EncoderName) -> None:
    turned = EncoderName(name.kind, name.name, name.revision, dict(reversed(name.options.items())))
    assert str(turned) == str(name)


@pytest.mark.parametrize(
    "text",
    [
        "open_clip:ViT-B-32/laion2b_s34b_b79k", "open_clip:hf-hub:ORG/REPO@abc123", "open_clip:RN50?weights=/w/a b.pt",
        "timm:vit_base_patch16_224.augreg_in21k@v1.2", "hashing:64", "timm:resnet50.a1_in1k?fit=pad&layer=-2",
        "hashing:64?background=1,2,3&query_prompt=find: ",
    ],
)  # fmt: skip
def test_names_of_the_contract_are_their_own_spelling(text: str) -> None:
    assert str(parse(text)) == text


def test_the_parts() -> None:
    name = parse("open_clip:hf-hub:ORG/REPO@REV?weights=/a/b=c.pt&query_prompt=a%26b%3F%20%C3%A9")
    assert (name.kind, name.name, name.revision) == ("open_clip", "hf-hub:ORG/REPO", "REV")
    assert name.options == {"weights": "/a/b=c.pt", "query_prompt": "a&b? é"}
    assert parse("timm:/mnt/me%40home/50%25%3F").name == "/mnt/me@home/50%?"
    assert parse("hashing:64?").options == {}


@pytest.mark.parametrize("text", ["", "hashing", "hashing:", ":64", "hashing:@rev", "hashing:64@", "hashing:\ud800"])
def test_what_is_no_name_is_told_the_form(text: str) -> None:
    with pytest.raises(UsageError, match="is not an encoder name") as caught:
        parse(text)
    assert "KIND:NAME[@REVISION][?key=value]" in caught.value.hint
    assert "hashing" in caught.value.hint
    str(caught.value).encode()


def test_a_wrong_kind_is_told_the_nearest() -> None:
    with pytest.raises(UnknownName, match="no encoder kind is called 'OpenClip'") as caught:
        parse("OpenClip:RN50")
    assert "open_clip" in caught.value.hint
    assert caught.value.where == "OpenClip:RN50"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("seed", "'seed' is not an option"),
        ("seed=", "'seed=' is not an option"),
        ("=1", "'=1' is not an option"),
        ("seed=1&seed=1", "option 'seed' is given twice"),
    ],
)
def test_bad_options(query: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse(f"hashing:64?{query}")
    assert f"hashing:64?{query}" in str(caught.value)
    assert caught.value.hint


def test_an_option_that_a_kind_does_not_read_is_refused() -> None:
    parse("hashing:64?seed=1").allow({"seed"})
    with pytest.raises(UnknownName, match="no option is called 'sede'") as caught:
        parse("hashing:64?sede=1").allow({"seed", "dtype"})
    assert "did you mean seed" in caught.value.hint
    with pytest.raises(UnknownName) as caught:
        parse("hashing:64?zzz=1").allow({"seed", "dtype"})
    assert caught.value.hint == "known: dtype, seed"


def test_flags() -> None:
    name = parse("hashing:64?a=true&b=false&c=True")
    assert [name.flag(o, True) for o in "abd"] == [True, False, True]
    assert name.flag("d", False) is False
    with pytest.raises(UsageError, match="c must be true or false, not 'True'"):
        name.flag("c", True)


@pytest.mark.parametrize("text", ["-2", "0", "7", "10"])
def test_whole_numbers(text: str) -> None:
    assert parse(f"hashing:64?layer={text}").integer("layer", None, low=-2, high=10) == int(text)


@pytest.mark.parametrize("text", ["-3", "11", "--1", "1-", "-", "1.0", "²", "٣", "9" * 5000, " 1", "x", "+1", "1_0"])
def test_what_is_no_whole_number_in_range(text: str) -> None:
    with pytest.raises(UsageError, match="layer must be a whole number from -2 to 10"):
        parse(f"hashing:64?layer={text}").integer("layer", None, low=-2, high=10)


def test_defaults_and_choices() -> None:
    name = parse("hashing:64?fit=pad")
    assert name.integer("layer", None, low=0, high=1) is None
    assert name.integer("layer", 5, low=0, high=1) == 5
    assert name.choice("fit", "crop", ("crop", "pad")) == "pad"
    assert name.choice("dtype", "float32", naming.DTYPES) == "float32"
    with pytest.raises(UsageError, match="fit must be one of crop, squash, not 'pad'"):
        name.choice("fit", "crop", ("crop", "squash"))
