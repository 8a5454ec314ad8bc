"""Nearest neighbours of stored vectors: one query at a time and a hundred at once, under filters and without.

Every approximate index, ours and others', is tuned to recall@10 of 0.95 on the same queries; the note says what it
reached. A limit of one product has the scores of all rows and sorts none.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from benches import peers, vectors
from benches.frame import Contender
from numpy.typing import NDArray

from embedder.records import FloatMatrix
from index.search import search
from index.view import View

UNIT = "queries"
K, RECALL = 10, 0.95
KINDS = ("flat", "faiss_hnsw", "faiss_pq_fs", "faiss_ivf_pq")
PARTS = {"10 %": 100, "1 %": 10, "0.1 %": 1}
Answers = Callable[[FloatMatrix], NDArray[Any]]


def contenders(work: Path, options: Namespace) -> list[Contender]:
    """Fill a store and what is compared with it with the same vectors, and return what searches them."""
    asked = 20 if options.quick else 100
    rows = options.rows or (3_000 if options.quick else 50_000)
    base, queries = vectors.stored(options.store, asked) if options.store else vectors.planted(rows, asked)
    truth = best(queries @ base.T)
    collection = vectors.filled(work, base)
    ours = {kind: vectors.indexed(work, collection, kind, RECALL) for kind in KINDS}
    exact = faiss.IndexFlatIP(base.shape[1])
    exact.add(base)
    found = [
        *both("limit", "one product, all scores, none sorted", lambda q: q @ base.T, queries, None),
        *both("peer", "numpy, a product and a partial sort", lambda q: best(q @ base.T), queries, truth),
        *both("peer", "faiss Flat", lambda q: exact.search(q, K)[1], queries, truth),
        *both("peer", "faiss HNSW, the same graph", raw(ours["faiss_hnsw"]), queries, truth),
    ]
    for peer in peers.built(work, base):
        _, value = peers.tuned(peer, queries, truth, RECALL)
        note = f", at {value}, built in {peer.build_seconds:.1f} s"
        found += both("peer", peer.name, asking(peer.find, K), queries, truth, note)
    for kind, view in ours.items():
        base_of = view.now().base
        note = f", built in {base_of.manifest['measured']['build_seconds']:.1f} s" if base_of else ""
        found += both("us", f"permafrost search, {kind}", partial(answers, view), queries, truth, note)
    return [*found, *filtered(work, base, queries, ours)]


def filtered(work: Path, base: FloatMatrix, queries: FloatMatrix, ours: dict[str, View]) -> Iterator[Contender]:
    """Yield searches under filters; the limit scores the rows that pass, which it is given."""
    table, queries = peers.lance_table(work, base, "plain"), queries[:20]
    graph = raw(ours["faiss_hnsw"])
    part = np.arange(len(base)) % 1000
    for share, most in PARTS.items():
        allowed, where, scope = part < most, f"part < {most}", f"filter that keeps {share}"
        rows = np.flatnonzero(allowed)
        subset = np.ascontiguousarray(base[rows])
        truth = rows[best(queries @ subset.T)]
        ways: list[tuple[Any, str, Answers]] = [
            ("limit", "scan of the subset, gathered before", partial(scanned, rows, subset)),
            ("peer", "faiss HNSW with a selector", asking(graph, allowed)),
            ("peer", "LanceDB, prefilter and scan", partial(peers.lance_find, table, k=K, where=where)),
            *(
                ("us", f"permafrost search, {kind}", partial(answers, ours[kind], where=where))
                for kind in ("flat", "faiss_hnsw", "faiss_pq_fs")
            ),
        ]
        for role, name, find in ways:
            note = f"recall@{truth.shape[1]} {peers.recall(find(queries), truth):.3f}"
            yield Contender(role, name, singly(find, queries), scope, note)


def asking(find: Callable[..., NDArray[Any]], *more: Any) -> Answers:
    """Return a search of queries alone, with what else it is asked."""
    return lambda queries: find(queries, *more)


def scanned(rows: NDArray[np.int64], subset: FloatMatrix, queries: FloatMatrix) -> NDArray[np.int64]:
    """Return the best rows of a subset that was gathered before."""
    return np.asarray(rows[best(queries @ subset.T)])


def both(
    role: Any, name: str, find: Answers, queries: FloatMatrix, truth: NDArray[np.int64] | None, more: str = ""
) -> list[Contender]:
    """Return a contender that asks one query at a time and one that asks all at once, with the recall they reach."""
    note = f"recall@{K} {peers.recall(find(queries), truth):.3f}{more}" if truth is not None else ""
    return [
        Contender(role, name, singly(find, queries), "one query at a time", note),
        Contender(role, name, lambda: len(find(queries)), f"{len(queries)} queries at once", note),
    ]


def singly(find: Answers, queries: FloatMatrix) -> Callable[[], int]:
    """Return a run that asks one query at a time."""
    return lambda: sum(len(find(queries[i : i + 1])) for i in range(len(queries)))


def raw(view: View) -> Callable[..., NDArray[np.int64]]:
    """Return a search of the FAISS index inside a view, by FAISS alone, with the arguments that were tuned."""
    loaded = view.now().base
    assert loaded is not None
    graph: Any = loaded.engine

    def find(queries: FloatMatrix, allowed: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        library: Any = faiss
        settings = library.SearchParametersHNSW(efSearch=graph.args.ef_search)
        bits = None if allowed is None else np.packbits(allowed, bitorder="little")
        if bits is not None:
            settings.sel = library.IDSelectorBitmap(bits)
        return np.asarray(graph.index.search(queries, K, params=settings)[1])

    return find


def answers(view: View, queries: FloatMatrix, where: str | None = None) -> NDArray[np.int64]:
    """Return the positions that our search answers with."""
    found = [[int(hit.id) for hit in answer.hits] for answer in search(view, queries, k=K, where=where)]
    return np.array([row + [-1] * (K - len(row)) for row in found])


def best(scores: FloatMatrix) -> NDArray[np.int64]:
    """Return the columns of the ten best scores of each row, sorted."""
    top = np.argpartition(-scores, min(K, scores.shape[1] - 1), axis=1)[:, :K]
    order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1)
    return np.take_along_axis(top, order, axis=1)
