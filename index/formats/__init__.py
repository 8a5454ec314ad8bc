"""Formats of vectors outside the store; a file here is one.

`finds(path)` returns the files that it would read there, none where it cannot; `read(paths, asked)` opens them as an
`index.bringing.VectorSource`. A format that can be exported to also offers `begin(folder, part, rows, shape)`, which
returns an `index.taking.PartWriter`.
"""
