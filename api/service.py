"""Acts that cross rooms. The command line, the routes and the Python door call these, and return these shapes.

Nothing here prints, parses a command line or knows of HTTP. Results are plain dictionaries with the contract's keys.
"""

from __future__ import annotations

from api.acts.featuring import Featuring
from api.acts.finetuning import Finetuning
from api.acts.keeping import Keeping
from api.acts.lifecycle import Lifecycle
from api.acts.moving import Moving
from api.acts.naming import Naming
from api.acts.reembedding import Reembedding
from api.acts.reporting import Reporting
from api.acts.searching import Searching


class Service(Moving, Reembedding, Finetuning, Reporting, Searching, Naming, Featuring, Keeping, Lifecycle):
    """One store, and all that can be done with it; a file in `api/acts/` is one part."""
