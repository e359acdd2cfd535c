"""`python -m hsunmix` is the command `hsunmix`."""

import sys

from hsunmix.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
