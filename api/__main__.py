"""`python -m api`: the command line, where no script is installed."""

import sys

from api.cli import main

sys.exit(main())
