"""What a job is asked for over HTTP, how it is told of, and what reports became of some."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from api.schemas import Cell, ColumnName, Reply, Strict

Name = Annotated[str, Field(min_length=1, max_length=500)]
Filter = Annotated[str, Field(min_length=1, max_length=10_000)]


class RunRequest(Strict):
    """What to embed: a folder or table that the service may read, or without one the collection itself."""

    source: str | None = Field(None, min_length=1, max_length=4096)
    encoders: list[Name] = Field(default_factory=list, max_length=16)
    media: Literal["image", "text"] | None = None
    content_column: Name | None = None
    id_column: Name | None = None
    label_levels: int | None = Field(None, ge=0, le=16)
    chunk: Name | None = None
    where: Filter | None = None
    prefix: Name | None = None
    limit: int | None = Field(None, ge=1)
    prune: bool | None = None
    max_failure_rate: float = Field(0.01, ge=0, le=1)


class IndexRequest(Strict):
    """The targets of an index, as in `permafrost index`; `memory` in bytes."""

    space: Name | None = None
    kind: Name = "auto"
    recall: float = Field(0.95, ge=0, le=1)
    memory: int | None = Field(None, ge=1)
    latency_ms: float | None = Field(None, gt=0)
    args: dict[ColumnName, Cell] = Field(default_factory=dict, max_length=64)
    seed: int = Field(0, ge=0, le=2**31)


class HeadRequest(Strict):
    """What a head is trained on."""

    label: Name
    kind: Name = "linear"
    space: Name | None = None
    name: Name | None = None
    split: Name | None = None
    where: Filter | None = None
    min_class_size: int | None = Field(None, ge=1)
    group: Name | None = None
    coverage: float | None = Field(None, gt=0, lt=1)
    per_class: bool | None = None
    max_risk: float | None = Field(None, gt=0, lt=1)
    controls: bool | None = None
    task: Literal["classes", "regression", "multilabel", "ordinal"] | None = None
    separator: str | None = Field(None, min_length=1, max_length=8)
    order: list[str] | None = Field(None, min_length=2, max_length=100)
    templates: list[str] | None = Field(None, min_length=1, max_length=100)
    seed: int | None = Field(None, ge=0, le=2**31)


class ReportRequest(Strict):
    """What a transfer report compares and is asked for, as the flags of `permafrost report`; shares are from 0 to 1."""

    label: Name
    encoders: list[Name] = Field(default_factory=list, max_length=16)
    reference: Name | None = None
    target: float | None = Field(None, ge=0, le=1)
    human: float | None = Field(None, ge=0, le=1)
    delta: float = Field(0.02, ge=0, le=1)
    layers: bool = True
    controls: bool = True
    group: Name | None = None
    where: Filter | None = None
    min_class_size: int = Field(5, ge=2)
    html: bool = True
    seed: int = Field(0, ge=0, le=2**31)


class FinetuneRequest(Strict):
    """What an encoder is tuned on, and how, as in `permafrost finetune`."""

    label: Name
    encoder: Name
    method: Literal["lp_ft", "lora"] = "lp_ft"
    interpolate: float = Field(1.0, ge=0, le=1, description="How far from frozen (0) to tuned (1) weights.")
    epochs: int = Field(10, ge=1, le=10_000)
    patience: int = Field(3, ge=1, le=10_000)
    minutes: float | None = Field(None, gt=0, description="End the tuning after this long, with what it has.")
    lr: float | None = Field(None, gt=0, le=1)
    layer_decay: float = Field(0.75, gt=0, le=1)
    batch_size: int = Field(32, ge=1, le=65_536)
    rank: int = Field(8, ge=1, le=4096)
    alpha: float = Field(16.0, gt=0, le=1e6)
    split: Name | None = None
    group: Name | None = None
    where: Filter | None = None
    min_class_size: int = Field(5, ge=2)
    limit: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0, le=2**31)


class JobReply(Reply):
    """A job as it is now: queued, running, finished, failed or cancelled."""

    id: str
    kind: str
    collection: str
    state: Literal["queued", "running", "finished", "failed", "cancelled"]
    progress: dict[str, Any]
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    revision: int


class JobsReply(Reply):
    """The jobs, the newest first."""

    jobs: list[JobReply]


class ReportsReply(Reply):
    """The reports of a collection."""

    collection: str
    reports: list[dict[str, Any]]


class ReportReply(Reply):
    """A transfer report; each verdict has `value`, `sentence`, `interval` and `evidence`."""

    collection: str
    report: int
    label: str
    verdicts: dict[str, dict[str, Any]]
    encoders: list[dict[str, Any]]
    tables: dict[str, Any]
    figures: dict[str, Any]
    notes: list[str]
