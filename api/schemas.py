"""What may be asked over HTTP, strictly; and what comes back, for the schema at `/openapi.json`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api import urls

MOST_K = 1000
MOST_INPUTS = 256
Id = Annotated[str, Field(min_length=1, max_length=4096)]
MOST_EMBEDDED = 2048
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Strict(BaseModel):
    """Nothing is converted, nothing unknown passes, and every number is finite."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class Query(Strict):
    """Exactly one of the four."""

    text: str | None = Field(None, min_length=1, max_length=100_000, description="Words, for a Space that reads texts.")
    image: str | None = Field(None, min_length=4, description="A picture's file, in base64; or its URL.")
    vector: list[Finite] | None = Field(None, min_length=1, max_length=65_536, description="A vector of the Space.")
    id: str | None = Field(None, min_length=1, max_length=4096, description="A stored item.")

    @model_validator(mode="after")
    def _one(self) -> Query:
        given = sorted(self.model_fields_set)
        if len(given) != 1 or getattr(self, given[0]) is None:
            raise ValueError(
                f"exactly one of text, image, vector and id is needed, not {' and '.join(given) or 'none'}"
            )
        return self

    def opened(self, fetch: Callable[[str], bytes] | None = None) -> dict[str, Any]:
        """Return the query with the picture's bytes, by `fetch` from an address. Raises `UsageError` as neither."""
        asked: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set}
        if self.image is not None:
            asked["image"] = urls.picture(self.image, fetch)
        return asked


class SearchQuery(Query):
    """Exactly one of text, image, vector, id; or like, with or without unlike."""

    like: list[Id] | None = Field(None, min_length=1, max_length=256, description="Near to these stored items.")
    unlike: list[Id] | None = Field(None, min_length=1, max_length=256, description="Away from these, with like.")

    @model_validator(mode="after")
    def _one(self) -> SearchQuery:
        given = sorted(self.model_fields_set - ({"unlike"} if self.like else set()))
        if len(given) != 1 or getattr(self, given[0]) is None or given == ["unlike"]:
            raise ValueError(
                "exactly one of text, image, vector, id and like (with or without unlike) is needed, not "
                f"{' and '.join(given) or 'none'}"
            )
        return self


class SearchRequest(Strict):
    """One query, or several that are answered alike, and how to answer."""

    query: SearchQuery | None = None
    queries: list[SearchQuery] | None = Field(
        None, min_length=1, max_length=MOST_INPUTS, description="Several, answered in one pass, instead of query."
    )
    k: int = Field(10, ge=1, le=MOST_K, description="How many neighbours; left out with min_score, as many as 1000.")
    group_by: str | None = Field(None, max_length=500, description="Only the best item of each value of a column.")
    diversity: Finite | None = Field(None, ge=0, le=1, description="From 0, the nearest, to 1, unlike each other.")
    unique: Finite | None = Field(None, ge=0, le=1, description="Leave out what is this near to a better hit.")
    min_score: Finite | None = Field(None, ge=-1, le=1, description="Every item that scores at least this, exactly.")
    hybrid: bool = Field(False, description="Join the nearest with a full-text search of the query's words.")
    filter: str | dict[str, Any] | None = Field(None, description="As SQL text, or as must/should/must_not.")
    space: str | None = Field(None, description="An alias, a fingerprint or an encoder's name; none means the default.")
    exact: bool = Field(False, description="Score every vector, whatever index there is.")
    include: list[str] | None = Field(
        None, max_length=256, description="The columns of each hit's item; none means all."
    )

    @model_validator(mode="after")
    def _one(self) -> SearchRequest:
        if (self.query is None) == (self.queries is None):
            raise ValueError("exactly one of query and queries is needed")
        return self

    def all(self) -> list[SearchQuery]:
        """Return the queries, one or several."""
        return self.queries or ([self.query] if self.query is not None else [])

    def most(self) -> int:
        """Return how many neighbours: where a score decides, as many as are answered over HTTP."""
        return MOST_K if "k" not in self.model_fields_set and self.min_score is not None else self.k


class PredictRequest(Strict):
    """Inputs to classify, answered in their order."""

    inputs: list[Query] = Field(min_length=1, max_length=MOST_INPUTS)
    top_k: int | None = Field(None, ge=1, le=MOST_K, description="Only the most probable classes of each.")
    space: str | None = Field(None, max_length=500, description="Of which Space the vectors are; another one is a 409.")


class ClassifyRequest(Strict):
    """Inputs and the names of classes, with the encoder that reads both."""

    inputs: list[Query] = Field(min_length=1, max_length=MOST_INPUTS)
    labels: list[str] = Field(min_length=2, max_length=MOST_K, description="Names of classes.")
    templates: list[str] = Field([], max_length=256, description="Texts with {} where a label goes.")
    model: str | None = Field(None, max_length=500, description="An encoder's name; or a collection.")
    collection: str | None = Field(None, max_length=63, description="Whose Space is meant; or a model.")
    space: str | None = Field(None, max_length=500, description="Of the collection; none means its default.")
    top_k: int | None = Field(None, ge=1, le=MOST_K, description="Only the most probable classes of each.")


Text = Annotated[str, Field(min_length=1, max_length=1_000_000)]


Cell = str | int | Finite | bool | None
ColumnName = Annotated[str, Field(min_length=1, max_length=200)]


class PutItem(Strict):
    """One item: an id, and its text, its picture in base64, or a vector (or one for each of its parts)."""

    id: str = Field(min_length=1, max_length=4096)
    text: Text | None = None
    image: str | None = Field(None, min_length=4)
    vector: list[Finite] | list[list[Finite]] | None = Field(None, min_length=1, max_length=65_536)
    columns: dict[ColumnName, Cell] = Field(default_factory=dict, max_length=256, description="Labels and metadata.")
    group: str | None = Field(None, max_length=4096)

    @model_validator(mode="after")
    def _content(self) -> PutItem:
        given = [name for name in ("text", "image") if getattr(self, name) is not None]
        if len(given) > 1 or (not given and self.vector is None):
            raise ValueError("an item has a text or an image, a vector, or one of each")
        return self

    def opened(self) -> dict[str, Any]:
        """Return the item with the picture's bytes. Raises `UsageError` where they are not base64."""
        found = self.model_dump(exclude_none=True)
        return {**found, **({"image": urls.picture(self.image)} if self.image is not None else {})}


class PutRequest(Strict):
    """Items, and the Space that they go into; vectors need one of the three, other items may leave it out."""

    items: list[PutItem] = Field(min_length=1, max_length=1000)
    space: str | None = Field(None, max_length=500, description="An alias, a fingerprint or an encoder's name.")
    encoder: str | None = Field(None, max_length=500, description="An encoder, whose Space may be new here.")
    declare: str | None = Field(None, min_length=1, max_length=200, description="A name for what made the vectors.")


class PatchRequest(Strict):
    """Columns to set."""

    set: dict[ColumnName, Cell] = Field(min_length=1, max_length=256)
    by: str = Field("http", min_length=1, max_length=200, description="Who says so.")


class Reply(BaseModel):
    """A document that may grow; what is named here is always there."""

    model_config = ConfigDict(extra="allow")


class Hit(Reply):
    """One neighbour; higher scores are nearer."""

    id: str
    score: float
    item: dict[str, Any]


class DuplicateGroup(Reply):
    """The item that was stored first, and those like it."""

    keep: str
    extra: list[str]
    scores: list[float]
    same_content: list[bool]


class DuplicatesReply(Reply):
    """Groups of items that are the same or nearly so, the largest first."""

    collection: str
    space: str
    threshold: float
    exact: bool
    index: str
    compared: int
    groups: list[DuplicateGroup]


class SearchReply(Reply):
    """Neighbours, nearest first; several such under `results` where several queries were asked."""

    collection: str
    space: str
    metric: str
    exact: bool
    index: str
    took_ms: float
    hits: list[Hit]


class Prediction(Reply):
    """What a head says of one input, and whether it should be believed."""

    input: str
    id: str | None
    label: str
    probabilities: dict[str, float] = Field(description="Calibrated, likeliest first.")
    prediction_set: list[str] | None = Field(description="Holds the true class, or all of them, as often as promised.")
    abstained: bool
    why: Literal["unsure", "foreign"] | None = Field(description="Why it abstained.")
    domain: float | None = Field(description="Percentile among items like the training ones; small is unlike them.")
    value: float | None = Field(None, description="The number, of a head that predicts one; label has it as text.")
    interval: list[float | None] | None = Field(None, description="Holds the true number as often as promised.")
    labels: list[str] | None = Field(None, description="The classes, of a head that gives several; none or more.")


class PredictReply(Reply):
    """Predictions, in the order of the inputs."""

    collection: str
    head: str
    version: int
    label: str
    space: str
    stale: str | None = Field(description="Why the head should be trained again.")
    results: list[Prediction]


class LabelError(Reply):
    """An item whose label is hard or wrong, with the nearest training items of the class that it looks like."""

    id: str
    given: str
    suggested: str
    given_probability: float
    suggested_probability: float
    like: list[dict[str, Any]]


class LabelErrorsReply(Reply):
    """Items whose label a head doubts, most suspicious first."""

    collection: str
    head: str
    version: int
    space: str
    looked_at: int
    noise_rate: float
    found: int
    settled: int = Field(description="Suspects that were relabelled, changed or deleted since.")
    errors: list[LabelError]


class ClassifyReply(Reply):
    """Predictions from names of classes, in the order of the inputs."""

    model: str
    space: str
    labels: list[str]
    templates: list[str]
    logit_scale: float
    results: list[Prediction]


class CollectionsReply(Reply):
    """The collections of the store."""

    collections: list[dict[str, Any]]


class CollectionReply(Reply):
    """All about one collection."""

    collection: str
    items: int
    columns: dict[str, str]
    spaces: list[dict[str, Any]]


class HeadsReply(Reply):
    """The heads of a collection."""

    collection: str
    heads: list[dict[str, Any]]


class HeadReply(Reply):
    """One version of a head."""

    head: str
    version: int
    space: str
    kind: str
    label: str


class ItemReply(Reply):
    """One item's columns that are not null."""

    collection: str
    id: str
    item: dict[str, Any]


class ItemsReply(Reply):
    """A page of items; `total` counts all that pass the filter."""

    collection: str
    total: int
    limit: int
    offset: int
    items: list[dict[str, Any]]


class PutReply(Reply):
    """What became of each item, in their order."""

    collection: str
    space: str
    counts: dict[str, int]
    results: list[dict[str, Any]]


class PatchReply(Reply):
    """What was set."""

    collection: str
    id: str
    set: dict[str, Any]


class DeleteReply(Reply):
    """How many items were deleted, and whether the collection itself was."""

    collection: str
    deleted: int
    removed: bool


class LiveReply(Reply):
    """The service runs."""

    status: Literal["alive"]


class ReadyReply(Reply):
    """Whether the service answers, and if not yet, how far it is."""

    ready: bool
    phase: str
    percent: int


class ErrorBody(BaseModel):
    """What was wrong, and what to do."""

    type: str
    message: str
    hint: str
    param: str | None
    code: str
    request_id: str


class ErrorReply(BaseModel):
    """The one shape of errors."""

    error: ErrorBody


EVERYWHERE = (400, 401, 403, 408, 413, 429, 500, 503)


def errors(*statuses: int, model: type[BaseModel] = ErrorReply) -> dict[int | str, dict[str, Any]]:
    """Return the declaration of a route's errors, with those that can happen at every route."""
    return {status: {"model": model} for status in sorted({*EVERYWHERE, *statuses})}
