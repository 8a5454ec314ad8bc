"""Names for Spaces. A search resolves its name once, so that a swap is seen before it or after it, never during."""

from __future__ import annotations

from embedder.errors import Refused, UnknownName
from index import files
from index.store import Collection, check_name

DEFAULT = "default"


def listed(collection: Collection) -> dict[str, str]:
    """Return the fingerprint behind each alias."""
    found: dict[str, str] = collection.settings["aliases"]
    return dict(sorted(found.items()))


def point(collection: Collection, name: str, selector: str) -> str | None:
    """Make `name` mean the Space that `selector` names, in one rename of a file; return what it meant before.

    Raises:
        UsageError: `name` cannot be one.
        UnknownName: no Space of the collection matches `selector`; the nearest are in the hint.
    """
    space = collection.space(selector)
    before = listed(collection).get(check_name(name, "alias"))
    collection.change_settings("aliases", name, space.fingerprint)
    return before


def remove(collection: Collection, name: str) -> str:
    """Forget an alias and return what it meant.

    Raises:
        UnknownName: there is none of this name.
        Refused: it is `default`, which a search without a Space reads.
    """
    if name == DEFAULT:
        raise Refused(
            "the alias default is the Space used when none is named",
            where=f"collection {collection.name}",
            hint=f"point it elsewhere: permafrost alias {collection.name} default SPACE",
        )
    with files.lock(collection.lock_path("settings")):
        settings = collection.settings
        known = settings["aliases"]
        if name not in known:
            raise UnknownName.of(
                "alias", name, known, where=f"collection {collection.name}", hint=f"aliases: {', '.join(sorted(known))}"
            )
        was = str(known.pop(name))
        files.write_json(collection.path / "collection.json", settings)
    return was
