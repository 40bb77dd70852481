"""`python -m docs.generators FOLDER` writes every page of the reference."""

import sys
from pathlib import Path

from docs.generators.pages import PAGES, write_pages

if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
    print(f"{sys.argv[1]}: {', '.join(PAGES)}")
