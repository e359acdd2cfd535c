"""The page of hsunmix as a Hugging Face Space: everything is in the package."""

import os

from hsunmix.cli.main import main

if __name__ == "__main__":
    limits = ["--max-pixels", os.environ.get("HSUNMIX_MAX_PIXELS", "65536"), "--keep", "20"]
    raise SystemExit(main(["app", "--host", "0.0.0.0", "--port", "7860", *limits]))
