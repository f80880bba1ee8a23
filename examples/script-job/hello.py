"""Says hello, and leaves a file that is uploaded when the run has ended."""

import argparse
import os
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--name", default="you")
name = parser.parse_args().name

print(os.environ["TEXT"], "to", name)
Path(os.environ["OUTPUT_DIR"], "greeting.txt").write_text(f"{os.environ['GREETING']}, {name}!\n")
