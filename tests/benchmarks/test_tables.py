"""The documentation's tables are made of the kept figures."""

import copy

import pytest

from benchmarks.tables import MARKED, PAGES, filled, newest


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_those_of_the_kept_figures(page):
    text = page.read_text(encoding="utf-8")
    assert MARKED.search(text)
    assert filled(text, newest()) == text


def test_another_figure_is_seen():
    text = next(page for page in PAGES if page.name == "accelerator.md").read_text(encoding="utf-8")
    kept = copy.deepcopy(newest())
    kept["accelerator"]["small"]["area"]["ecp5-25f"]["lut"] += 1
    assert filled(text, kept) != text
    readme = next(page for page in PAGES if page.name == "README.md").read_text(encoding="utf-8")
    assert filled(readme, kept) == readme
    kept["examples"]["digits"]["accuracy"][0] -= 1
    assert filled(readme, kept) != readme


def test_a_table_that_nobody_makes_is_named():
    with pytest.raises(KeyError, match="unknown"):
        filled("<!-- table unknown -->\n<!-- end -->", newest())


def test_the_newest_release_is_that_of_the_highest_number(tmp_path):
    for name in ("0.2.0", "0.10.0", "0.9.1"):
        (tmp_path / f"{name}.json").write_text(f'{{"version": "{name}"}}')
    assert newest(tmp_path)["version"] == "0.10.0"
