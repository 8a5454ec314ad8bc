"""What a dry run finds that would leave this machine, for an encoder that is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from embedder import chunking
from embedder.decode.text import decode_text
from embedder.encoder import Encoder
from embedder.records import Failure, Item
from embedder.remote import REMOTE


@dataclass
class Leaving:
    """`texts` that would be sent, and about how many `tokens` they have, prompts included."""

    texts: int = 0
    tokens: int = 0

    def add(self, item: Item, encoder: Encoder) -> None:
        """Count an item that would be embedded; nothing for an encoder that is here, or an item that cannot be read."""
        tower = encoder.text
        if tower is None or encoder.device != REMOTE:
            return
        found = decode_text(item, chunking.MAX_CHARS if tower.split else tower.max_chars)
        if isinstance(found, Failure):
            return
        spans = tower.split(found.value) if tower.split else [(0, len(found.value))]
        prepared = [tower.tokenize(found.value[begin:end], "document") for begin, end in spans]
        self.texts += len(prepared)
        self.tokens += sum(tower.length(one) for one in prepared)
