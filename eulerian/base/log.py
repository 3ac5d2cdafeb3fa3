"""The package's logger: silent, unless the program that uses the package configures ``logging``.

Nothing here asks which rank it is on: who logs does so on rank 0 only, or every line would come once per rank.
"""

import logging
from typing import Final

LOGGER: Final = logging.getLogger("eulerian")
LOGGER.addHandler(logging.NullHandler())  # or Python prints warnings of a library that nobody has configured

# What a run tells its user, for the `run.log` in its folder. It goes no further up: the terminal has it already, and
# whoever listens to LOGGER the iterations.
RUN_LOGGER: Final = logging.getLogger("eulerian.run")
RUN_LOGGER.addHandler(logging.NullHandler())
RUN_LOGGER.setLevel(logging.INFO)
RUN_LOGGER.propagate = False
