"""Draws the README's picture from a finished run: ``python docs/figure.py runs/demo docs/images/digits.png``."""

import sys

from codesign.report import write_figure

if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python docs/figure.py RUN PICTURE")
    write_figure(sys.argv[1], sys.argv[2])
