"""The Python door's part for the life of a collection: names, tags, restores and clean-up."""

from __future__ import annotations

from api.answers import Record
from api.remote import RemoteService
from api.service import Service


class Living:
    """The methods of a collection that keep it in order."""

    _service: Service | RemoteService
    name: str

    def aliases(self) -> dict[str, str]:
        """Return the Space behind each alias, by its fingerprint."""
        return dict(self._service.alias(self.name)["aliases"])

    def alias(self, name: str, space: str) -> Record:
        """Make a name mean a Space, in one step; `default` is the one that is used when none is named."""
        return Record(self._service.alias(self.name, name, space))

    def drop_alias(self, name: str) -> None:
        """Forget an alias."""
        self._service.alias(self.name, name, delete=True)

    def tags(self) -> list[Record]:
        """Return the tags, oldest first."""
        return [Record(tag) for tag in self._service.tag(self.name)["tags"]]

    def tag(self, name: str) -> Record:
        """Name the collection as it is now."""
        return Record(self._service.tag(self.name, name)["tag"])

    def drop_tag(self, name: str) -> None:
        """Forget a tag."""
        self._service.tag(self.name, name, delete=True)

    def restore(self, tag: str | None = None, *, version: int | None = None) -> Record:
        """Make the collection what it was; `undo` of the result is the tag that leads back."""
        return Record(self._service.restore(self.name, tag, version=version))

    def vacuum(self, *, purge: bool = False, keep_s: float | None = None) -> Record:
        """Sweep, compact and clean; with `purge` erase what was deleted from every file."""
        return Record(self._service.vacuum(self.name, purge=purge, keep_s=keep_s))
